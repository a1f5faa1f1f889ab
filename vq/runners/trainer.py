"""The training loop: ``train_step`` contains everything a step needs. Everything optional is a callback."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from vq.core import collectives
from vq.core.errors import ConfigError
from vq.core.phases import TRAINER_CALLBACKS
from vq.core.random import seed_everything
from vq.core.records import Batch, Losses
from vq.data.loading import Loader, LoaderSettings, training_batches
from vq.interfaces import Callback, Dataset, Runner, Strategy, Task
from vq.registries import VQOptimizerRegistry, VQRunnerRegistry
from vq.runners.belonging import check_belongs
from vq.runners.context import RunContext
from vq.runners.guard import FiniteGuard
from vq.runners.journal import Journal
from vq.runners.named import Callbacks, named
from vq.runners.optimizers import mark_undecayed
from vq.runners.optimizing import Stepped, StepSettings
from vq.runners.preflight import preflight
from vq.runners.protocol import TrainerLike
from vq.runners.resuming import Resume, rank_state, restore, training_state
from vq.strategies.stepping import clip_by_norm

# in a config this is one dict: the arguments of the factory, and the step settings
OptimizerFactory = Annotated[
    Callable[..., Optimizer] | tuple[Callable[..., Optimizer], StepSettings], VQOptimizerRegistry, StepSettings
]


@VQRunnerRegistry.register_()
class Trainer(Runner):
    """Trains ``model`` (a task) for ``iters`` optimizer steps, or for ``epochs`` or ``samples``: give one of the three.

    ``optimizers`` have the names of the task's roots; ``StepSettings`` lists what they take besides the arguments of their
    factories. In a config, a dict of ``callbacks`` is merged over the default ones and sorted by phase (vq/core/phases.py);
    a list is used as it is.
    """

    default_callbacks: ClassVar[Mapping[str, Mapping[str, Any]]] = TRAINER_CALLBACKS

    def __init__(
        self,
        model: Task,
        dataset: Dataset,
        dataloader: LoaderSettings,
        optimizers: dict[str, OptimizerFactory],
        strategy: Strategy,
        callbacks: Callbacks[TrainerLike] = None,
        iters: int | None = None,
        epochs: float | None = None,
        samples: int | None = None,
    ) -> None:
        if sum(length is not None for length in (iters, epochs, samples)) != 1:
            raise ConfigError('a trainer takes exactly one of iters, epochs and samples', 'Set the other two to None.')
        if not optimizers or set(model.roots()) != set(optimizers):
            raise ConfigError(
                f'optimizers are {sorted(optimizers)}, and the model has the roots {sorted(model.roots())}',
                'Name each optimizer as the root it owns.' if optimizers else 'Without an optimizer nothing is trained.',
            )
        self.model, self.dataset, self.dataloader, self.strategy = model, dataset, dataloader, strategy
        self.callbacks: dict[str, Callback[TrainerLike]] = named(callbacks)
        pairs = {name: given if isinstance(given, tuple) else (given, StepSettings()) for name, given in optimizers.items()}
        self.factories = {name: factory for name, (factory, _) in pairs.items()}
        self.step_settings = {name: settings for name, (_, settings) in pairs.items()}
        self._length = (iters, epochs, samples)
        self.step = 0  # optimizer steps done
        self.samples_seen = 0  # over all ranks and micro-batches
        self.stop_requested = False
        self.measured: tuple[int, dict[str, float]] | None = None  # step and figures of the last evaluation
        self.data_seconds = 0.0  # spent waiting for batches since the run began
        self.iters = 0
        self.gradient_norms: dict[str, Tensor] = {}
        self.resumed: Resume | None = None

    # for callbacks

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
        """Everything before the first step: device, folder, optimizers, callbacks, state of a checkpoint to resume."""
        self.model.train()
        if self.strategy.accumulate > 1 and any(
            getattr(module, 'updates_in_forward', False) and module.training for module in self.model.modules()
        ):
            raise ConfigError(
                'the quantizer updates its codebook in forward, so a step cannot be split into micro-batches',
                'Set accumulate to 1, or take the update out of forward (in_forward=False).',
            )
        self.strategy.start()
        self.context.make_folder()
        iters, epochs, samples = self._length
        wanted = samples if samples is not None else (epochs or 0) * len(self.dataset)
        self.iters = iters if iters is not None else math.ceil(wanted / self.batch_size)
        self.journal = Journal(self.work_dir / 'log.jsonl')
        self.roots = self.model.roots()
        self.strategy.shard(self.roots)
        self.strategy.place(self.model)
        check_belongs(self.dataset, self.model)
        self.optimizers = {
            name: factory(self._groups(self.roots[name]), self.strategy.fused) for name, factory in self.factories.items()
        }
        for optimizer in self.optimizers.values():
            self.strategy.adapt(optimizer)
        self._prepare_steps()
        seed_everything(self.context.seed, self.strategy.rank)
        self.model.seed = self.context.seed
        for callback in self.callbacks.values():
            callback.bind(self)
        if self.resumed is not None:
            restore(self, self.resumed)
        self.wrapped = self.strategy.wrap(self.roots)
        if self.context.begin is not None:
            self.context.begin()
        collectives.barrier()

    def _prepare_steps(self) -> None:
        """The guard, and each optimizer with its step settings, for ``train_step``."""
        self.guard = FiniteGuard(self.strategy)
        self.stepped = {
            name: Stepped(optimizer, self.step_settings[name], self.iters, self.batch_size, self.strategy.clip)
            for name, optimizer in self.optimizers.items()
        }
        if not any(stepped.parameters for stepped in self.stepped.values()):
            raise ConfigError(
                'the model has no parameter that learns, so no step would change anything', 'Freeze fewer of its parts.'
            )

    def _groups(self, root: nn.Module) -> list[dict[str, Any]]:
        parameters = self.strategy.trainable(root)
        mark_undecayed(root, parameters)
        return [{'params': parameters}]

    def run(self) -> None:
        try:
            self.setup()
            self._call('before_run')
            if self.context.preflight:
                preflight(self)
            if self.context.announce is not None:
                self.context.announce()
            self.context.keep_config()  # only now: a refused resume leaves the config of the run as it is
            with self.open_loader() as self.loader:
                self.batches = iter(self.loader)
                while self.step < self.iters and not self.stop_requested:
                    self.train_step()
            self._call('after_run')
        except BaseException as error:
            self._call('on_error', error)
            raise
        finally:
            self.strategy.stop()

    def train_step(self) -> None:
        """One step of every optimizer over ``accumulate`` micro-batches."""
        strategy, step = self.strategy, self.step + 1
        self._call('before_step')
        for stepped in self.stepped.values():
            stepped.set_rates(step, strategy)
        if not self.model.training:  # calling train() on all modules in every step costs a percent
            self.model.train()
        for micro in range(strategy.accumulate):
            batch, last = self._next_batch(), micro == strategy.accumulate - 1
            with strategy.micro_step(self.wrapped, last):
                for name, losses in self._losses(batch, step):
                    self._call('after_losses', name, losses)
                    self.guard.observe(name, losses)
                    strategy.backward(losses.total / strategy.accumulate)
                    if last:
                        self._step_optimizer(name, step)
            self._call('after_batch', batch, self.model.outputs)
        strategy.finish_step()
        self.model.update(self.guard.ok)
        self.step, self.samples_seen = step, self.samples_seen + self.batch_size
        for hook in ('after_step', 'save', 'inspect'):
            self._call(hook)

    @torch.no_grad()
    def _step_optimizer(self, name: str, step: int) -> None:
        """Unscale the complete gradients, take their norm, clip, and step if all values are finite. No host sync."""
        strategy, stepped = self.strategy, self.stepped[name]
        strategy.unscale(stepped.optimizer)
        self._call('optimize', name)
        norm = self.gradient_norms[name] = strategy.gradient_norm(stepped.parameters)
        if stepped.clip is not None:
            clip_by_norm(stepped.parameters, norm, stepped.clip)
        ok = self.guard.decide(name, step, None if strategy.gradients_may_overflow else norm)
        strategy.step(stepped.optimizer, ok)

    def _losses(self, batch: Batch, step: int) -> Iterator[tuple[str, Losses]]:
        """The losses that the training step of the task yields. The task runs under autocast, the caller does not."""
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
        for callback in self.callbacks.values():
            getattr(callback, hook)(*arguments)

    def open_loader(self) -> Loader:
        """A new loader, for the caller alone, of the batches that training continues with."""
        strategy, seed = self.strategy, self.context.seed
        check_belongs(self.dataset, self.model)
        plan = training_batches(self.dataset, self.dataloader, strategy.rank, strategy.world_size, seed, self.samples_seen)
        return Loader(self.dataset, plan, self.dataloader, seed, training=True)

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        return training_state(self)

    def rank_state(self) -> dict[str, Any]:
        return rank_state(self)
