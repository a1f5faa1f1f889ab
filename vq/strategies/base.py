"""One device: a CPU, a CUDA GPU, or Apple's MPS. The base class of the other strategies."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from vq.core.environment import need_one_process
from vq.core.errors import ConfigError
from vq.core.records import Batch
from vq.interfaces import Strategy, Task
from vq.registries import VQStrategyRegistry
from vq.strategies.compiling import CompileSettings, begin_graphs, compile_part, compile_settings, find_parts, usual_parts
from vq.strategies.host_memory import keep_freed_memory
from vq.strategies.recomputing import recompute_in
from vq.strategies.scaler import LossScaler
from vq.strategies.stepping import gradient_norm, guarded_step

Precision = Literal['fp32', 'bf16', 'fp16']


@VQStrategyRegistry.register_()
class BaseStrategy(Strategy):
    """One process, one device.

    precision   autocast of forward passes; fp16 adds a loss scaler
    accumulate  micro-batches per optimizer step
    clip        bound on the gradient norm, unless an optimizer has its own
    compile     torch.compile of encoder, quantizer, decoder, discriminator and perceptual networks, in place, in
                evaluation too; a string names the back end (default inductor), a dict gives all of CompileSettings
    channels_last  images and convolution weights in NHWC order
    deterministic  only deterministic kernels; an operation without one is an error
    checkpoint_activations  recompute the activations of encoder and decoder blocks in backward; or the paths of the
                            parts to recompute
    """

    name: ClassVar[str] = 'base'

    def __init__(
        self,
        device: str = 'auto',
        precision: Precision = 'fp32',
        accumulate: int = 1,
        clip: float | None = None,
        compile: bool | str | CompileSettings = False,
        channels_last: bool = False,
        deterministic: bool = False,
        checkpoint_activations: bool | tuple[str, ...] = False,
    ) -> None:
        if accumulate < 1:
            raise ConfigError(f'accumulate is {accumulate}', 'Give 1 or more micro-batches per step.')
        self.device_name, self.precision, self.accumulate, self.clip = device, precision, accumulate, clip
        self.channels_last, self.deterministic = channels_last, deterministic
        self.compile, self.checkpoint_activations = compile_settings(compile), checkpoint_activations
        if self.compile and self.compile.cuda_graphs and accumulate > 1:
            raise ConfigError(
                f'compile asks for CUDA graphs, and accumulate is {accumulate}: a micro-batch would overwrite gradients',
                "Set accumulate to 1, or mode='default' in compile.",
            )
        self._misnamed: ConfigError | None = None
        self.device = torch.device('cpu')
        self.scaler: LossScaler | None = None
        self.rank, self.world_size = 0, 1

    # launch

    def start(self) -> None:
        """Take the device and set up communication; every other method comes after this one."""
        if not self.distributed:
            need_one_process(f'the strategy {self.name}', ' Or take a strategy for several processes, such as AutoStrategy.')
        self.device = self.choose_device()
        if self.device.type == 'cpu':
            keep_freed_memory()
        if self.compile:
            self.compile.check(self.device)
        if self.deterministic:
            torch.use_deterministic_algorithms(True)
            torch.backends.cudnn.benchmark = False
        elif self.device.type == 'cuda':
            torch.backends.cudnn.benchmark = True
        if self.precision == 'fp16':
            self.scaler = LossScaler(self.device)

    def stop(self) -> None:
        """Release what ``start`` took."""

    def choose_device(self) -> torch.device:
        if self.device_name != 'auto':
            device = torch.device(self.device_name)
            if device.type == 'cuda' and not torch.cuda.is_available():
                raise ConfigError(
                    f"device '{self.device_name}' was asked for, and no CUDA device is usable",
                    "Use device='auto' or 'cpu', or check the driver.",
                )
            return device
        if torch.cuda.is_available():
            return torch.device('cuda', 0)
        return torch.device('mps' if torch.backends.mps.is_available() else 'cpu')

    # models and data

    def shard(self, roots: Mapping[str, nn.Module]) -> None:
        """Parameters stay whole."""

    def place(self, task: Task) -> None:
        """Move the task to the device, in the memory format of the strategy."""
        task.to(self.device)
        if self.channels_last:
            task.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.set_parts(task)

    def set_parts(self, task: Task) -> None:
        """Turn on recompute and torch.compile in the parts that the settings select."""
        self._misnamed = None
        if self.checkpoint_activations:
            recompute_in(task, self._named(task, 'checkpoint_activations', self.checkpoint_activations))
        if self.compile:
            parts = usual_parts(task) if self.compile.parts is None else self._named(task, 'compile', self.compile.parts)
            for part in parts.values():
                compile_part(part, self.compile)

    def _named(self, task: Task, option: str, names: bool | tuple[str, ...]) -> dict[str, nn.Module]:
        # '' is the path of the task itself
        parts, wrong = find_parts(task, ('',) if isinstance(names, bool) else tuple(names), option)
        self._misnamed = self._misnamed or wrong
        return parts

    def wrap(self, roots: Mapping[str, nn.Module]) -> dict[str, nn.Module]:
        """What the task calls in place of its roots."""
        if self._misnamed:  # not in set_parts: a validator has the strategy of a run, but only some of its parts
            raise self._misnamed
        return {name: self.wrap_one(root) for name, root in roots.items()}

    def wrap_one(self, root: nn.Module) -> nn.Module:
        return root

    def trainable(self, root: nn.Module) -> list[nn.Parameter]:
        return [parameter for parameter in root.parameters() if parameter.requires_grad]

    def origin(self, parameter: Tensor) -> Tensor:
        return parameter

    def to_device(self, batch: Batch) -> Batch:
        if self.compile and self.compile.cuda_graphs:
            begin_graphs()
        return batch.to(self.device, self.channels_last)

    def whole(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    # numbers and results

    def as_input(self, value: float) -> float | Tensor:
        return value

    def before_reading(self) -> None:
        """Nothing is pending: kernels were launched in order."""

    def joined(self, values: list[Tensor]) -> Tensor:
        return torch.cat(values)

    def adapt(self, optimizer: Optimizer) -> None:
        """torch's defaults fit."""

    # one step

    def autocast(self) -> AbstractContextManager[object]:
        """Around forward passes, not around backward."""
        if self.precision == 'fp32':
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16 if self.precision == 'bf16' else torch.float16)

    @contextlib.contextmanager
    def micro_step(self, wrapped: Mapping[str, nn.Module], last: bool) -> Iterator[None]:
        """Around forward and backward of one micro-batch. Only the last micro-batch all-reduces gradients."""
        yield

    def backward(self, loss: Tensor) -> None:
        torch.autograd.backward(self.scaler.scaled(loss) if self.scaler else loss)

    def unscale(self, optimizer: Optimizer) -> None:
        if self.scaler:
            self.scaler.unscale(optimizer)

    def gradient_norm(self, parameters: list[Tensor]) -> Tensor:
        return gradient_norm(parameters)

    @property
    def gradients_may_overflow(self) -> bool:  # type: ignore[override]
        return self.scaler is not None

    @property
    def fused(self) -> bool:  # type: ignore[override]
        return self.device.type in ('cpu', 'cuda')

    def step(self, optimizer: Optimizer, ok: Tensor) -> None:
        """Step if ``ok``, then drop the gradients."""
        guarded_step(optimizer, ok & self.scaler.fine(optimizer) if self.scaler else ok)
        optimizer.zero_grad(set_to_none=True)

    def finish_step(self) -> None:
        """After all optimizers of a step."""
        if self.scaler:
            self.scaler.update()

    def agree(self, flag: bool) -> bool:
        """Whether the flag of any rank is set. The answer may be a step late. No host sync."""
        return flag
