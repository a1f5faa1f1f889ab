"""The attributes of a runner that callbacks may use. A callback is typed with the protocol that its runner must implement."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor
from torch.optim import Optimizer

from vq.data.loading import Loader
from vq.interfaces import Callback, Dataset, Metric, Strategy, Task
from vq.runners.context import RunContext
from vq.runners.guard import FiniteGuard
from vq.runners.journal import Journal
from vq.runners.resuming import Resume


class RunnerLike(Protocol):
    """Any runner of a task over a dataset."""

    model: Task
    dataset: Dataset
    strategy: Strategy
    context: RunContext
    work_dir: Path


class ValidatorLike(RunnerLike, Protocol):
    """A pass over a split."""

    metrics: dict[str, Metric]


class TrainerLike(RunnerLike, Protocol):
    """A training run."""

    step: int  # optimizer steps done
    iters: int  # steps of the whole run
    samples_seen: int  # over all ranks and micro-batches
    guard: FiniteGuard
    journal: Journal
    optimizers: dict[str, Optimizer]
    gradient_norms: dict[str, Tensor]  # of the last step, on the device
    data_seconds: float  # spent waiting for batches since the run began
    resumed: Resume | None
    measured: tuple[int, dict[str, float]] | None  # step and figures of the last evaluation
    stop_requested: bool

    @property
    def callbacks(self) -> Mapping[str, Callback[Any]]: ...

    @property
    def batch_size(self) -> int:
        """Samples per optimizer step over all ranks and micro-batches."""

    @property
    def epoch(self) -> float: ...

    def open_loader(self) -> Loader:
        """A new loader, for the caller alone, of the batches that training continues with."""

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """The state that all ranks share, without weights; and the optimizer states that are sharded over ranks."""

    def rank_state(self) -> dict[str, Any]:
        """The state that differs between ranks."""
