"""Fully sharded data parallelism (torch's FSDP2): every rank keeps a part of parameters, gradients and optimizer states."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from vq.core import collectives
from vq.core.errors import ConfigError
from vq.interfaces import Quantizer, Task
from vq.interfaces.pretrained import frozen_parts
from vq.io.sharded import is_sharded, local
from vq.registries import VQStrategyRegistry
from vq.strategies.base import Precision
from vq.strategies.ddp import DDPStrategy
from vq.strategies.scaler import LossScaler
from vq.strategies.stepping import gradient_norm

_HALF = {'bf16': torch.bfloat16, 'fp16': torch.float16}
# optimizers that do the same to a tensor as to its parts; one of another kind says so: ``elementwise = True``
_ELEMENTWISE = ('Adadelta', 'Adagrad', 'Adam', 'AdamW', 'Adamax', 'ASGD', 'NAdam', 'RAdam', 'RMSprop', 'Rprop', 'SGD')


@VQStrategyRegistry.register_()
class FSDPStrategy(DDPStrategy):
    """FSDP2 over all ranks, for models whose training state does not fit on one device. Each optimizer root on its own.

    **What is sharded.** Parameters are cut along their first dimension, a part per rank. Modules may declare
    ``shard_blocks() -> list[nn.Module]``: parts that are gathered right before their ``forward`` and let go after it,
    while the next ones travel. They must be called in every step, through ``forward``, and compute under the run's
    autocast. What no block holds is gathered when its root is called, and stays until backward is through it.

    **What is not.** Quantizers, whose codes are read and written outside of ``forward`` too (``update``, ``lookup``), and
    vectors (biases, norms, activation norms) are whole and fp32 on every rank; their gradients are averaged by one
    collective per optimizer. Buffers and frozen networks are whole.

    **Precision.** Autocast, as under the other strategies; blocks are also gathered in the half type, which gives the
    same bits as autocast's own cast of the weights at half the traffic. Gradients are reduced in fp32. A root with a
    second-order penalty, which computes in fp32, is gathered in fp32, once per step, and kept until its optimizer has
    stepped: a gradient that is differentiated again still needs the weights.

    **Optimizers** get this rank's parts as plain parameters, so fused kernels, guarded steps and masks work as ever. An
    optimizer that looks at whole matrices would be wrong on parts and is refused.

    **Checkpoints.** Weights and their moving average are gathered tensor by tensor to the first rank, which holds them in
    host memory (4 bytes per parameter each) and writes them whole; optimizer states are written in parts by all ranks. So
    every command reads such a checkpoint, and base, ddp, fsdp and xla may resume each other's, at any number of ranks:
    weights, average, optimizer states and the order of data go on exactly. The same bits as an undisturbed run come out
    of the same strategy with the same number of ranks.

    Validation, tests and tokenising hold the model whole on every rank, like ddp.

    reshard_after_forward  False: blocks stay whole between forward and backward, which saves their second gathering
    """

    name: ClassVar[str] = 'fsdp'

    def __init__(
        self,
        device: str = 'auto',
        precision: Precision = 'fp32',
        accumulate: int = 1,
        clip: float | None = None,
        channels_last: bool = False,
        deterministic: bool = False,
        checkpoint_activations: bool | tuple[str, ...] = False,
        reshard_after_forward: bool = True,
        timeout: float = 600.0,
    ) -> None:
        super().__init__(
            device=device,
            precision=precision,
            accumulate=accumulate,
            clip=clip,
            channels_last=channels_last,
            deterministic=deterministic,
            checkpoint_activations=checkpoint_activations,
            timeout=timeout,
        )
        self.reshard_after_forward = reshard_after_forward
        self._origins: dict[Tensor, Tensor] = {}  # a rank's part as the optimizer has it -> the distributed parameter
        self._kept: list[nn.Module] = []  # gathered until their optimizer has stepped
        self._sharded: list[tuple[nn.Module, bool]] = []  # and whether they are cut again after forward

    def start(self) -> None:
        super().start()
        self._origins, self._kept, self._sharded = {}, [], []
        if self.device.type not in ('cpu', 'cuda'):
            raise ConfigError(f"the fsdp strategy does not run on '{self.device.type}'", "Use device='cpu', or strategy base.")
        if self.scaler is not None:
            self.scaler = ShardedLossScaler(self.device)

    # models

    def shard(self, roots: Mapping[str, nn.Module]) -> None:
        from torch.distributed.device_mesh import init_device_mesh

        mesh = init_device_mesh(self.device.type, (self.world_size,))
        for root in roots.values():
            self._shard_root(root, mesh)

    def _shard_root(self, root: nn.Module, mesh: Any) -> None:
        from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

        second_order = any(getattr(module, 'second_order', False) for module in root.modules())
        whole = whole_parameters(root)
        half = None if second_order else _HALF.get(self.precision)
        policy = MixedPrecisionPolicy(half, torch.float32 if half else None, cast_forward_inputs=False)
        reshard = self.reshard_after_forward and not second_order
        for block in shard_blocks(root):
            if any(parameter not in whole for parameter in block.parameters()):
                self._sharded.append((block, reshard))
                fully_shard(
                    block,
                    mesh=mesh,
                    reshard_after_forward=reshard,
                    mp_policy=policy,
                    ignored_params=whole,
                )
        self._sharded.append((root, False))
        fully_shard(
            root,
            mesh=mesh,
            reshard_after_forward=False,
            mp_policy=MixedPrecisionPolicy(cast_forward_inputs=False),
            ignored_params=whole,
        )
        if second_order:
            root.set_reshard_after_backward(False)  # type: ignore[operator]
            self._kept += [module for module in root.modules() if hasattr(module, 'reshard')]

    @contextlib.contextmanager
    def whole(self) -> Iterator[None]:
        """All parameters on every rank, gathered once. Ranks have different numbers of batches of a split, and a gathering
        that others do not join would meet another collective of theirs. Methods other than ``forward`` find parameters too.
        """
        for module, _ in self._sharded:
            module.set_reshard_after_forward(False, recurse=False)  # type: ignore[operator]
            module.reshard()  # type: ignore[operator]  # what is gathered may be older than the shards
            module.unshard()  # type: ignore[operator]
        try:
            yield
        finally:
            for module, reshard in self._sharded:
                module.set_reshard_after_forward(reshard, recurse=False)  # type: ignore[operator]
                module.reshard()  # type: ignore[operator]

    def place(self, task: Task) -> None:
        """Move what is not sharded (``shard`` has moved the rest). NHWC order is for that and for images: FSDP2 keeps
        its parameters contiguous."""
        layout = torch.channels_last if self.channels_last else torch.preserve_format
        with torch.no_grad():
            for module in task.modules():
                for parameter in module.parameters(recurse=False):
                    if not is_sharded(parameter):
                        wanted = layout if parameter.ndim == 4 else torch.preserve_format
                        parameter.data = parameter.data.to(self.device, memory_format=wanted)
                for name, buffer in module.named_buffers(recurse=False):
                    setattr(module, name, buffer.to(self.device))
        self.set_parts(task)

    def wrap_one(self, root: nn.Module) -> nn.Module:
        return root  # ``shard`` has changed it in place

    def trainable(self, root: nn.Module) -> list[nn.Parameter]:
        parameters = []
        for parameter in root.parameters():
            if parameter.requires_grad:
                mine = nn.Parameter(local(parameter.detach())) if is_sharded(parameter) else parameter
                if mine is not parameter:
                    self._origins[mine] = parameter
                parameters.append(mine)
        return parameters

    def origin(self, parameter: Tensor) -> Tensor:
        return self._origins.get(parameter, parameter)

    # one step

    @contextlib.contextmanager
    def micro_step(self, wrapped: Mapping[str, nn.Module], last: bool) -> Iterator[None]:
        if self.accumulate > 1:
            for root in wrapped.values():
                root.set_requires_gradient_sync(last)  # type: ignore[operator]
        yield

    def unscale(self, optimizer: Optimizer) -> None:
        self._collect_gradients(optimizer)
        super().unscale(optimizer)

    @torch.no_grad()
    def _collect_gradients(self, optimizer: Optimizer) -> None:
        """Hand the parts' gradients to the parts; average those of whole parameters over ranks, with one collective."""
        whole: list[Tensor] = []
        for parameter in parameters_of(optimizer):
            origin = self._origins.get(parameter)
            if origin is not None:
                part = local(origin)
                if part.data_ptr() != parameter.data_ptr():  # FSDP pads uneven parts anew when a state was loaded
                    parameter.data = part
                parameter.grad = None if origin.grad is None else local(origin.grad)
            elif parameter.grad is not None:
                whole.append(parameter.grad)
        if self.world_size > 1 and whole:
            joined = collectives.all_reduce(torch.cat([gradient.flatten() for gradient in whole])) / self.world_size
            parts = torch.split(joined, [gradient.numel() for gradient in whole])
            torch._foreach_copy_(whole, [part.view_as(to) for part, to in zip(parts, whole, strict=True)])

    def gradient_norm(self, parameters: list[Tensor]) -> Tensor:
        parts = [parameter for parameter in parameters if parameter in self._origins]
        whole = [parameter for parameter in parameters if parameter not in self._origins]
        # squares in double: those of large norms would overflow
        square = gradient_norm(parts).to(self.device).double().square()
        square = collectives.all_reduce(square) + gradient_norm(whole).to(self.device).double().square()
        return square.sqrt().float()

    def step(self, optimizer: Optimizer, ok: Tensor) -> None:
        if not (type(optimizer).__name__ in _ELEMENTWISE or getattr(optimizer, 'elementwise', False)):
            raise ConfigError(
                f'{type(optimizer).__name__} may look at whole tensors, and under fsdp it gets parts of them',
                f'Use one of {", ".join(_ELEMENTWISE)}; if yours works element by element, give its class elementwise = True.',
            )
        super().step(optimizer, ok)
        for parameter in parameters_of(optimizer):
            origin = self._origins.get(parameter)
            if origin is not None:
                origin.grad = None

    def finish_step(self) -> None:
        super().finish_step()
        for module in self._kept:
            module.reshard()  # type: ignore[operator]


class ShardedLossScaler(LossScaler):
    """An overflow in any rank's part is everybody's."""

    def unscale(self, optimizer: Optimizer) -> None:
        before, self._found = self._found, torch.zeros_like(self._found)
        super().unscale(optimizer)
        found = collectives.all_reduce(self._last[id(optimizer)], 'max')
        self._last[id(optimizer)] = found
        self._found = torch.maximum(before, found)


def shard_blocks(root: nn.Module) -> list[nn.Module]:
    """What the modules of a root declare, inner ones first."""
    declarations = [module.shard_blocks for module in root.modules() if hasattr(module, 'shard_blocks')]
    found = {block for declaration in declarations for block in declaration()}  # type: ignore[operator]
    return [module for module in reversed([*root.modules()]) if module in found]


def whole_parameters(root: nn.Module) -> set[nn.Parameter]:
    """Parameters that every rank keeps whole: those of quantizers and frozen parts, and vectors."""
    frozen = frozen_parts(root)
    kept = [module for name, module in root.named_modules() if isinstance(module, Quantizer) or name in frozen]
    whole = {parameter for module in kept for parameter in module.parameters()}
    return whole | {parameter for parameter in root.parameters() if parameter.numel() == max(parameter.shape, default=1)}


def parameters_of(optimizer: Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group['params']]
