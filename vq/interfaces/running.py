"""What a run is made of: task, schedules, callbacks, strategy, runner."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, ClassVar, Generic, Self, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from vq.core.phases import MOVED_SETTINGS
from vq.core.records import Batch, Losses, Outputs
from vq.interfaces.pretrained import Pretrained, freeze, frozen_parts, left_out

R = TypeVar('R')  # the protocol by which a callback uses its runner, see vq/runners/protocol.py


class Task(nn.Module):
    """The model that a runner trains: a training step per optimizer, a validation step, roots to optimize.

    Parts that are ``frozen`` (see ``Pretrained``) stay so: in eval mode, without gradients, out of optimizers and
    checkpoints. A subclass does nothing for it.

    ``outputs`` holds the detached outputs of the last training step, for callbacks that count tokens or save images.
    """

    outputs: Outputs
    seed: int = 0  # of the run, the same on all ranks: set by the trainer
    evaluated_as: ClassVar[str | None] = None  # the task a validator builds in place of this one

    def __init__(self) -> None:
        super().__init__()
        self.outputs = Outputs()

    def roots(self) -> dict[str, nn.Module]:
        """Optimizer name -> the module it trains. Each module is wrapped separately, and called through ``forward`` only."""
        raise NotImplementedError

    def training_step(self, batch: Batch, roots: Mapping[str, nn.Module], step: int) -> Iterator[tuple[str, Losses]]:
        """Yield (optimizer name, losses) in order; each optimizer is stepped before the generator resumes."""
        raise NotImplementedError

    def validation_step(self, batch: Batch) -> Outputs:
        raise NotImplementedError

    def forward_once(self, batch: Batch) -> None:
        """The computation that is counted as the operations per image."""
        self.validation_step(batch)

    def update(self, ok: Tensor | None = None) -> None:
        """Called after all optimizers of a step: updates codebooks and other state without gradients."""

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if isinstance(value, nn.Module):
            freeze(value)

    def add_module(self, name: str, module: nn.Module | None) -> None:
        super().add_module(name, module)
        if module is not None:
            freeze(module)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        freeze(self)
        return self

    def heaviest_step(self) -> int:
        """A step (from 1) with the most work: its memory is what the training needs."""
        return 1

    def frozen_parts(self) -> dict[str, Pretrained]:
        """Name -> part that is not trained, at any depth."""
        return frozen_parts(self)

    def frozen_prefixes(self) -> tuple[str, ...]:
        """Key prefixes of tensors that stay out of checkpoints (the hashes of their files are recorded instead)."""
        parts = self.frozen_parts()
        prefixes = [prefix for name, part in parts.items() for prefix in left_out(name, part)]
        inside = {id(module) for part in parts.values() for module in part.modules() if module is not part}  # type: ignore[attr-defined]
        for name, module in self.named_modules(remove_duplicate=False):  # under a second name, too
            if id(module) in inside and not f'{name}.'.startswith(tuple(prefixes)):
                prefixes.append(f'{name}.')
        return tuple(prefixes)

    def training_only_prefixes(self) -> tuple[str, ...]:
        """Key prefixes of parts that only training needs: left out of the EMA, and optional in files of weights."""
        return ()


class Schedule:
    """A factor on a base value over the steps of a run."""

    def bind(self, iters: int) -> None:
        """Set the lengths that were not given to ``iters``, the length of the run."""

    def __call__(self, step: int) -> float:
        raise NotImplementedError


class Callback(Generic[R]):
    """Optional work around the steps of a runner R. Hooks run in the order of the callbacks."""

    phase: ClassVar[str | None] = None  # its place in that order: see vq/core/phases.py
    elsewhere: ClassVar[Mapping[str, str]] = MOVED_SETTINGS
    runner: R

    def bind(self, runner: R) -> None:
        self.runner = runner

    def before_run(self) -> None: ...
    def before_step(self) -> None: ...
    def after_losses(self, name: str, losses: Losses) -> None: ...
    def optimize(self, name: str) -> None: ...  # gradients are complete; their norm, clipping and the step follow
    def after_batch(self, batch: Batch, outputs: Outputs) -> None: ...
    def after_step(self) -> None: ...  # the last hook that can change the state in a checkpoint
    def save(self) -> None: ...  # after all ``after_step``: checkpoints
    def inspect(self) -> None: ...  # after all ``save``: images, evaluations; must not change the state of the run
    def after_run(self) -> None: ...
    def on_error(self, error: BaseException) -> None: ...

    def state_dict(self) -> dict[str, Any]:  # in checkpoints, equal on all ranks; loads with ``weights_only=True``
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...

    def rank_state_dict(self) -> dict[str, Any]:  # in checkpoints, one per rank; dropped if the number of ranks changes
        return {}

    def load_rank_state_dict(self, state: Mapping[str, Any]) -> None: ...


class Strategy:
    """Device, precision, wrapping, collectives, launch. Models and runners do not depend on the kind of strategy."""

    name: ClassVar[str]
    distributed: ClassVar[bool] = False  # whether several processes share the work; if not, several are refused
    device: torch.device
    world_size: int
    rank: int
    accumulate: int
    clip: float | None
    scaler: Any  # of fp16, with state_dict and load_state_dict; None otherwise
    fused: bool  # whether torch's fused optimizers work on the device
    gradients_may_overflow: bool  # fp16: the scaler handles infinite gradients, they are not errors

    def start(self) -> None:
        """Take the device and set up communication; called before every other method."""
        raise NotImplementedError

    def stop(self) -> None:
        """Release the resources of ``start``."""
        raise NotImplementedError

    def shard(self, roots: Mapping[str, nn.Module]) -> None:
        """Shard parameters over ranks, if the strategy does: before ``place`` and ``trainable``, for training only."""
        raise NotImplementedError

    def place(self, task: Task) -> None:
        """Move the task to the device, in the memory format of the strategy."""
        raise NotImplementedError

    def trainable(self, root: nn.Module) -> list[nn.Parameter]:
        """The parameters for the optimizer of a root: those that are trained, or this rank's shards of them, in order."""
        raise NotImplementedError

    def origin(self, parameter: Tensor) -> Tensor:
        """The distributed tensor that ``parameter`` of an optimizer is a shard of; ``parameter`` itself if not sharded."""
        raise NotImplementedError

    def gradient_norm(self, parameters: list[Tensor]) -> Tensor:
        """The L2 norm over all gradients of an optimizer's parameters: one scalar on the device, equal on all ranks."""
        raise NotImplementedError

    def wrap(self, roots: Mapping[str, nn.Module]) -> dict[str, nn.Module]:
        """The wrapped roots, which the task calls in place of its roots."""
        raise NotImplementedError

    def to_device(self, batch: Batch) -> Batch:
        raise NotImplementedError

    def whole(self) -> AbstractContextManager[None]:
        """Around evaluation in training: parameters are unsharded, and each rank can call the model any number of times."""
        raise NotImplementedError

    def as_input(self, value: float) -> float | Tensor:
        """A number that changes from step to step, in the form that does not recompile the step."""
        raise NotImplementedError

    def before_reading(self) -> None:
        """Called before the host reads several results."""
        raise NotImplementedError

    def joined(self, values: list[Tensor]) -> Tensor:
        """Concatenate 1-d results that the host reads next."""
        raise NotImplementedError

    def adapt(self, optimizer: Optimizer) -> None:
        """Set how a new optimizer computes on the device."""
        raise NotImplementedError

    def autocast(self) -> AbstractContextManager[object]:
        """Around forward passes; backward stays outside."""
        raise NotImplementedError

    def micro_step(self, wrapped: Mapping[str, nn.Module], last: bool) -> AbstractContextManager[None]:
        """Around forward and backward of one micro-batch; gradients are reduced over ranks only for the last one."""
        raise NotImplementedError

    def backward(self, loss: Tensor) -> None:
        raise NotImplementedError

    def unscale(self, optimizer: Optimizer) -> None:
        """Make gradients final: unscaled, reduced over ranks, and stored where the optimizer reads them."""
        raise NotImplementedError

    def step(self, optimizer: Optimizer, ok: Tensor) -> None:
        """Step if ``ok`` (a bool on the device), then clear the gradients. No host sync."""
        raise NotImplementedError

    def finish_step(self) -> None:
        """Called after all optimizers of a step."""
        raise NotImplementedError

    def agree(self, flag: bool) -> bool:
        """Whether ``flag`` is true on any rank, equal on all ranks. Can be one step late; no host sync."""
        raise NotImplementedError


class Runner:
    """The object that a command runs: ``run`` does all its work under ``work_dir``."""

    work_dir: Path

    def needs_loaded(self) -> list[nn.Module]:
        """The modules whose pretrained files this runner uses."""
        model = getattr(self, 'model', None)
        return [] if model is None else [model]

    def run(self) -> Any:
        raise NotImplementedError
