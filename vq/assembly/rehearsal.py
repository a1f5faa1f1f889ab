"""Rehearses one training step on the meta device: nothing is allocated, and the lifetime of every tensor is tracked.

The step is the trainer's own (``Trainer.train_step``), so tensors are made and freed as in a run. Three classes simulate the
device: ``MetaStrategy`` its strategy, ``DeviceRules`` its autocast and its fused attention, ``LiveBytes`` its allocator.
Workspaces that kernels allocate while they run are not counted.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only
from torch.utils.hooks import RemovableHandle

from vq.core import shapes
from vq.core.records import Batch
from vq.interfaces import Callback, DiscriminatorPenalty, Quantizer, Strategy
from vq.nn.recompute import Recomputed
from vq.runners.guard import FiniteGuard
from vq.runners.optimizing import Stepped, StepSettings
from vq.runners.protocol import TrainerLike
from vq.runners.trainer import Trainer
from vq.strategies.base import BaseStrategy

META = torch.device('meta')
BOXES = 8  # of an image
HALVES = {'bf16': torch.bfloat16, 'fp16': torch.float16}


def _names(*texts: str) -> frozenset[str]:
    return frozenset(' '.join(texts).split())


# The lists of CUDA's autocast, by names of operations (ATen/autocast_mode.h). torch has other lists for the CPU, and none for
# the meta device. The last line of each list has functions that are composed of listed ones.
IN_HALF = _names(
    'conv1d conv2d conv3d conv_tbc conv_transpose1d conv_transpose2d conv_transpose3d convolution linear prelu einsum',
    'matmul mm mv bmm addmm addmv addr addbmm baddbmm chain_matmul linalg_multi_dot linalg_vecdot',
    'scaled_dot_product_attention lstm_cell gru_cell rnn_tanh_cell rnn_relu_cell',
    '__matmul__ __rmatmul__ multi_head_attention_forward',
)
IN_FP32 = _names(
    'acos asin cosh erfinv exp expm1 log log10 log1p log2 pow reciprocal renorm rsqrt sinh tan logsumexp softplus',
    'group_norm layer_norm native_layer_norm rms_norm frobenius_norm nuclear_norm cosine_similarity cdist dist pdist',
    'mse_loss l1_loss smooth_l1_loss huber_loss kl_div nll_loss nll_loss2d poisson_nll_loss binary_cross_entropy_with_logits',
    'cosine_embedding_loss hinge_embedding_loss margin_ranking_loss multi_margin_loss multilabel_margin_loss',
    'soft_margin_loss triplet_margin_loss upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_linear1d',
    'upsample_bilinear2d upsample_trilinear3d upsample_bicubic2d',
    '__pow__ __rpow__ __rdiv__ square cross_entropy interpolate normalize',
)
FP32_RESULT = _names(  # without an fp32 copy of the input
    'cumprod cumsum linalg_matrix_norm linalg_vector_norm log_softmax norm prod softmax sum',
    'softmin',
)
IN_WIDEST = _names(
    'addcdiv addcmul atan2 bilinear cross dot vdot grid_sampler index_put scatter_add tensordot',
    'grid_sample',
)


class LiveBytes(TorchDispatchMode):
    """Bytes of the tensors on ``device`` that are made while this mode is active: now, and at the peak.

    A storage counts from the operation that makes it until its last reference is gone, once for all of its views.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.device, self.now, self.peak, self.counting = device, 0, 0, True
        self._sizes: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = shapes.run(func, args, kwargs or {})
        if self.counting:
            tree_map_only(Tensor, self._see, found)
        return found

    def _see(self, value: Tensor) -> None:
        storage = value.untyped_storage()
        key = storage._cdata
        if value.device != self.device or key in self._sizes:
            return
        self._sizes[key] = storage.nbytes()
        self.now += storage.nbytes()
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._forget, key).atexit = False

    def _forget(self, key: int) -> None:
        self.now -= self._sizes.pop(key, 0)

    def leave_out(self, *values: Tensor) -> None:
        """Exclude these tensors, which are counted elsewhere."""
        for value in values:
            key = value.untyped_storage()._cdata
            self.now -= self._sizes.get(key, 0)
            self._sizes[key] = 0


class DeviceRules(TorchFunctionMode):
    """Two things that the meta device lacks: autocast by CUDA's lists, and attention without a matrix of scores.

    As in torch, a parameter is cast once per autocast region. ``casted`` is called with the parameter and its copy.
    """

    def __init__(self, half: torch.dtype | None, casted: Callable[[nn.Parameter, Tensor], None]) -> None:
        super().__init__()
        self.half, self._casted = half, casted
        self.exact = 0  # number of running calls of parts that compute in fp32
        self.depth = 0
        self._copies: dict[int, Tensor] = {}

    def __enter__(self) -> DeviceRules:
        self.depth += 1
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        self.depth -= 1
        if not self.depth:
            self._copies.clear()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = dict(kwargs or {}), getattr(func, '__name__', '')
        if self.half is not None and 'out' not in kwargs and not self.exact:
            if name in IN_HALF:
                args, kwargs = tree_map_only(Tensor, self._to_half, (args, kwargs))
            elif name in IN_FP32:
                args, kwargs = tree_map_only(Tensor, _to_fp32, (args, kwargs))
            elif name in FP32_RESULT and args and isinstance(args[0], Tensor) and args[0].dtype in HALVES.values():
                kwargs.setdefault('dtype', torch.float32)
            elif name in IN_WIDEST and torch.float32 in {getattr(value, 'dtype', None) for value in args}:
                args, kwargs = tree_map_only(Tensor, _to_fp32, (args, kwargs))
        if func is torch.nn.functional.scaled_dot_product_attention and _is_fused(args, kwargs):
            # the fused kernel saves q, k, v, the result and one number per row; on the meta device torch saves the scores too
            kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
            return kernel(*args, 0.0, kwargs.get('is_causal', False))[0]
        return func(*args, **kwargs)

    def _to_half(self, value: Tensor) -> Tensor:
        assert self.half is not None
        if not value.is_floating_point() or value.dtype in (torch.float64, self.half):
            return value
        if not (value.is_leaf and value.requires_grad and value.dtype == torch.float32):
            return value.to(self.half)
        if id(value) not in self._copies:
            self._copies[id(value)] = value.to(self.half)
            if isinstance(value, nn.Parameter):
                self._casted(value, self._copies[id(value)])
        return self._copies[id(value)]


def _is_fused(args: Any, kwargs: Any) -> bool:
    """Whether GPUs have a fused kernel for this attention: it needs the channels of a head contiguous in memory."""
    return len(args) == 3 and set(kwargs) <= {'is_causal'} and all(value.is_meta and value.stride(-1) == 1 for value in args)


def _to_fp32(value: Tensor) -> Tensor:
    return value.float() if value.dtype in HALVES.values() else value


class MetaStrategy(BaseStrategy):
    """One device that computes nothing. Optimizer steps are not tracked: their memory is counted from their state."""

    def __init__(self, like: Strategy, live: LiveBytes, rules: DeviceRules) -> None:
        super().__init__(
            'meta',
            accumulate=like.accumulate,
            channels_last=getattr(like, 'channels_last', False),
            checkpoint_activations=getattr(like, 'checkpoint_activations', False),
        )
        self.device, self.live, self.rules = META, live, rules

    def autocast(self) -> AbstractContextManager[object]:
        return self.rules

    def gradient_norm(self, parameters: list[Tensor]) -> Tensor:
        return torch.zeros((), device=META)

    def step(self, optimizer: Optimizer, ok: Tensor) -> None:
        self.live.counting = False
        optimizer.step()
        self.live.counting = True
        optimizer.zero_grad(set_to_none=True)


@dataclasses.dataclass
class Rehearsal:
    """The memory of one rehearsed step."""

    activations: int = 0  # peak bytes in forward and backward, without the entries below
    casts: dict[nn.Parameter, int] = dataclasses.field(default_factory=dict)  # bytes of autocast's copy of a parameter
    gradients: dict[str, list[nn.Parameter]] = dataclasses.field(default_factory=dict)  # optimizer -> with a gradient
    states: dict[nn.Parameter, list[Tensor]] = dataclasses.field(default_factory=dict)  # its optimizer's state tensors


class _Notes(Callback[TrainerLike]):
    """Records the parameters that get gradients, and their optimizer states."""

    def __init__(self, seen: Rehearsal) -> None:
        self.seen = seen

    def optimize(self, name: str) -> None:
        self.seen.gradients[name] = [parameter for parameter in self._parameters(name) if parameter.grad is not None]

    def after_step(self) -> None:
        for name, optimizer in self.runner.optimizers.items():
            for parameter in self._parameters(name) if name in self.seen.gradients else ():
                kept = optimizer.state[parameter].values()
                self.seen.states[parameter] = [value for value in kept if isinstance(value, Tensor)]

    def _parameters(self, name: str) -> list[nn.Parameter]:
        return [parameter for group in self.runner.optimizers[name].param_groups for parameter in group['params']]


def rehearse(trainer: Trainer, images: int, image_size: tuple[int, int]) -> Rehearsal:
    """Rehearse the heaviest step of a trainer that was built on the meta device, with ``images`` per micro-batch."""
    model, seen, live = trainer.model, Rehearsal(), LiveBytes(META)
    trainer = copy.copy(trainer)  # the attributes that ``setup`` makes are set below

    def casted(parameter: nn.Parameter, half: Tensor) -> None:
        live.leave_out(half)
        seen.casts[parameter] = half.nbytes

    rules = DeviceRules(HALVES.get(getattr(trainer.strategy, 'precision', 'fp32')), casted)
    trainer.strategy = MetaStrategy(trainer.strategy, live, rules)
    trainer.strategy.place(model)
    live.leave_out(*model.parameters(), *model.buffers())
    trainer.callbacks = {'notes': _Notes(seen)}
    trainer.callbacks['notes'].bind(trainer)
    trainer.roots = trainer.wrapped = model.roots()
    trainer.optimizers = {
        name: factory([{'params': trainer.strategy.trainable(trainer.roots[name])}], False)
        for name, factory in trainer.factories.items()
    }
    trainer.stepped = {name: Stepped(found, StepSettings(), 1, images, None) for name, found in trainer.optimizers.items()}
    read = getattr(getattr(model, 'conditioner', None), 'kinds', ())  # of a batch, by its conditioner
    trainer.guard, trainer.batches = FiniteGuard(trainer.strategy), _batches(images, image_size, read)  # type: ignore[assignment]
    trainer.step = model.heaviest_step() - 1
    with contextlib.ExitStack() as stack:
        for part in model.modules():
            if isinstance(part, (Quantizer, DiscriminatorPenalty)):
                for watch in _exact_calls(part, rules):
                    stack.callback(watch.remove)
            if isinstance(part, Recomputed):  # backward calls ``compute`` without any hook
                part.compute = _under(rules, part.compute)  # type: ignore[method-assign, assignment]
                stack.callback(delattr, part, 'compute')
        for parameter in model.parameters():
            if parameter.requires_grad:
                hook = parameter.register_post_accumulate_grad_hook(lambda found: live.leave_out(found.grad))  # type: ignore[no-untyped-call]
                stack.callback(hook.remove)
        stack.enter_context(live)
        trainer.train_step()
    seen.activations = live.peak
    return seen


def _batches(images: int, image_size: tuple[int, int], read: Sequence[str]) -> Iterator[Batch]:
    while True:
        image = torch.zeros(images, 3, *image_size, dtype=torch.uint8, device=META)
        numbers: Sequence[Tensor] = torch.zeros(2, images, dtype=torch.int64, device=META).unbind()
        batch = Batch(image, [str(index) for index in range(images)], numbers[0], numbers[1])
        if 'text' in read:
            batch.text = [''] * images
        if 'layout' in read:  # as many boxes as most photographs have, and a label for each pixel
            batch.boxes = torch.zeros(images, BOXES, 4, device=META)
            batch.box_categories, batch.boxes_mask = (batch.boxes[..., 0].to(kind) for kind in (torch.int64, torch.bool))
            batch.mask = torch.zeros(images, *image_size, dtype=torch.int64, device=META)
        yield batch


def _under(rules: DeviceRules, compute: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """``compute`` under the rules. If backward calls it to recompute, torch restores its own autocast, but not our mode."""

    def computed(*inputs: Any, **options: Any) -> Tensor:
        with contextlib.nullcontext() if rules.depth else rules:
            return compute(*inputs, **options)

    return computed


def _exact_calls(part: nn.Module, rules: DeviceRules) -> tuple[RemovableHandle, RemovableHandle]:
    """Suspend autocast in calls of quantizers and penalties: they turn it off, which has no effect on the meta device."""

    def enter(*_: Any) -> None:
        rules.exact += 1

    def leave(*_: Any) -> None:
        rules.exact -= 1

    # always_call: recomputation ends with an exception as soon as it has the tensors that backward needs
    return part.register_forward_pre_hook(enter), part.register_forward_hook(leave, always_call=True)
