"""The training loop. Short on purpose: what happens around a step stands in callbacks."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from vq.core import collectives
from vq.core.errors import ConfigError
from vq.core.random import seed_everything
from vq.core.records import Batch
from vq.data.loading import Loader, LoaderSettings
from vq.data.plan import training_plan
from vq.interfaces import Callback, Dataset, Runner, Strategy, Task
from vq.registries import VQOptimizerRegistry, VQRunnerRegistry
from vq.runners.context import RunContext
from vq.runners.guard import FiniteGuard
from vq.runners.journal import Journal
from vq.runners.optimizers import mark_undecayed
from vq.runners.resuming import Resume, restore, training_state

OptimizerFactory = Annotated[Callable[..., Optimizer], VQOptimizerRegistry]


@VQRunnerRegistry.register_()
class Trainer(Runner):
    """Trains ``model`` (a task) for ``iters`` optimizer steps, or for ``epochs`` or ``samples``: give one of the three.

    ``optimizers`` are named as the task names its roots. ``callbacks`` run in their order, the checkpoint callback last.
    """

    def __init__(
        self,
        model: Task,
        dataset: Dataset,
        dataloader: LoaderSettings,
        optimizers: dict[str, OptimizerFactory],
        strategy: Strategy,
        callbacks: list[Callback],
        iters: int | None = None,
        epochs: float | None = None,
        samples: int | None = None,
    ) -> None:
        if sum(length is not None for length in (iters, epochs, samples)) != 1:
            raise ConfigError('a trainer takes exactly one of iters, epochs and samples', 'Set the other two to None.')
        missing = sorted(set(model.roots()) ^ set(optimizers))
        if missing:
            raise ConfigError(
                f'optimizers are {sorted(optimizers)}, and the model has the roots {sorted(model.roots())}',
                'Name each optimizer as the root it owns.',
            )
        self.model, self.dataset, self.dataloader, self.strategy, self.callbacks = (
            model,
            dataset,
            dataloader,
            strategy,
            callbacks,
        )
        self.factories, self._length = optimizers, (iters, epochs, samples)
        self.step = 0  # optimizer steps done
        self.samples_seen = 0  # over all ranks and micro-batches
        self.stop_requested = False
        self.measured: tuple[int, dict[str, float]] | None = None  # step and figures of the last evaluation
        self.data_seconds = 0.0  # spent waiting for batches; the log callback reads and clears it
        self.iters = 0
        self.gradient_norms: dict[str, Tensor] = {}
        self.resumed: Resume | None = None

    # what callbacks read

    @property
    def batch_size(self) -> int:
        """Samples per optimizer step over all ranks and micro-batches."""
        return self.dataloader.per_rank(self.strategy.world_size) * self.strategy.world_size * self.strategy.accumulate

    @property
    def epoch(self) -> float:
        return self.samples_seen / max(len(self.dataset), 1)

    # the run

    def bind(self, context: RunContext) -> None:
        self.context, self.work_dir = context, context.work_dir

    def setup(self) -> None:
        """Everything before the first step: device, folder, data, optimizers, state of an earlier run."""
        if self.strategy.accumulate > 1 and any(
            getattr(module, 'updates_in_forward', False) and module.training for module in self.model.modules()
        ):
            raise ConfigError(
                'the quantizer updates its codebook in forward, so a step cannot be split into micro-batches',
                'Set accumulate to 1, or take the update out of forward (in_forward=False).',
            )
        self.strategy.start()
        self.context.prepare()
        iters, epochs, samples = self._length
        wanted = samples if samples is not None else (epochs or 0) * len(self.dataset)
        self.iters = iters if iters is not None else math.ceil(wanted / self.batch_size)
        self.journal = Journal(self.work_dir / 'log.jsonl')
        self.roots = self.model.roots()
        self.strategy.shard(self.roots)
        self.strategy.place(self.model)
        self.optimizers = {
            name: factory(self._groups(root), self.strategy.fused)
            for (name, factory), root in zip(
                self.factories.items(), (self.roots[name] for name in self.factories), strict=True
            )
        }
        self.guard = FiniteGuard(self.strategy.device)
        seed_everything(self.context.seed, self.strategy.rank)
        for callback in self.callbacks:
            callback.bind(self)
        if self.resumed is not None:
            restore(self, self.resumed)
        self.wrapped = self.strategy.wrap(self.roots)

    def _groups(self, root: nn.Module) -> list[dict[str, Any]]:
        parameters = self.strategy.trainable(root)
        mark_undecayed(root, parameters)
        return [{'params': parameters}]

    def run(self) -> None:
        try:
            self.setup()
            self._call('before_run')
            with self._open_loader() as loader:
                self.batches = iter(loader)
                while self.step < self.iters and not self.stop_requested:
                    self.train_step()
            self._call('after_run')
        except BaseException as error:
            for callback in self.callbacks:
                callback.on_error(error)
            raise
        finally:
            self.strategy.stop()

    def _open_loader(self) -> Loader:
        strategy, seed = self.strategy, self.context.seed
        plan = training_plan(
            len(self.dataset),
            self.dataloader.per_rank(strategy.world_size),
            strategy.rank,
            strategy.world_size,
            seed,
            self.samples_seen,
        )
        self.loader = Loader(self.dataset, plan, self.dataloader, seed, training=True)
        return self.loader

    def train_step(self) -> None:
        """One step of every optimizer over ``accumulate`` micro-batches."""
        self._call('before_step')
        step = self.step + 1
        if not self.model.training:  # walking through all modules in every step costs a percent
            self.model.train()
        for micro in range(self.strategy.accumulate):
            batch, last = self._next_batch(), micro == self.strategy.accumulate - 1
            with self.strategy.micro_step(self.wrapped, last):
                for name, losses in self._losses(batch, step):
                    for callback in self.callbacks:
                        callback.after_losses(name, losses)
                    self.guard.observe(name, losses)
                    self.strategy.backward(losses.total / self.strategy.accumulate)
                    if last:
                        self._call('optimize', name)
            self._call('after_batch', batch, self.model.outputs)
        self.strategy.finish_step()
        self.model.update(self.guard.ok)
        self.step, self.samples_seen = step, self.samples_seen + self.batch_size
        self._call('after_step')

    def _losses(self, batch: Batch, step: int) -> Iterator[tuple[str, Any]]:
        """The task's training step, each part of it under autocast, what happens between them outside of it."""
        parts = self.model.training_step(batch, self.wrapped, step)
        while True:
            with self.strategy.autocast():
                part = next(parts, None)
            if part is None:
                return
            yield part

    def _next_batch(self) -> Batch:
        start = time.perf_counter()
        batch: Batch = next(self.batches)
        self.data_seconds += time.perf_counter() - start
        return self.strategy.to_device(batch)

    def _call(self, hook: str, *arguments: Any) -> None:
        for callback in self.callbacks:
            getattr(callback, hook)(*arguments)

    # used by the optimize callback

    def step_optimizer(self, name: str, norm: Tensor | None) -> None:
        ok = self.guard.decide(name, self.step + 1, None if self.strategy.gradients_may_overflow else norm)
        self.strategy.step(self.optimizers[name], ok)

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        return training_state(self)

    @property
    def is_main(self) -> bool:
        return collectives.is_main()

    def synchronize(self) -> None:
        if self.strategy.device.type == 'cuda':
            torch.cuda.synchronize(self.strategy.device)
