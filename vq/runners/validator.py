"""One pass over a split, with metrics."""

from __future__ import annotations

import dataclasses
import time
from typing import Any, ClassVar

import torch
from torch import nn

from vq.core import collectives
from vq.core.bindings import Source
from vq.core.errors import RunFailure
from vq.core.random import seed_everything
from vq.core.records import Batch, Outputs
from vq.data.loading import Loader, LoaderSettings
from vq.data.plan import evaluation_plan
from vq.interfaces import Dataset, Metric, Runner, Strategy, Task
from vq.registries import VQRunnerRegistry
from vq.runners.belonging import check_belongs
from vq.runners.context import RunContext
from vq.runners.named import Callbacks, named
from vq.runners.progress import ProgressBar
from vq.runners.protocol import ValidatorLike


@VQRunnerRegistry.register_()
class Validator(Runner):
    """Runs ``model.validation_step`` over every sample exactly once, for any number of ranks and any batch size.

    Losses are averaged over samples; each metric defines its own figures. Metrics of codebooks take ``codebook_size`` from
    the model.
    """

    binds: ClassVar[dict[str, Source]] = {'metrics.*.codebook_size': 'model.counted_codes'}

    def __init__(
        self,
        model: Task,
        dataset: Dataset,
        dataloader: LoaderSettings,
        strategy: Strategy,
        metrics: dict[str, Metric] | None = None,
        callbacks: Callbacks[ValidatorLike] = None,
    ) -> None:
        self.model, self.dataset, self.dataloader, self.strategy = model, dataset, dataloader, strategy
        self.metrics, self.callbacks = metrics or {}, named(callbacks)
        self.networks = nn.ModuleDict(
            {name: metric.network for name, metric in self.metrics.items() if metric.network is not None}
        )
        self.limit: int | None = None  # evaluate only this many samples, the first of the split
        self.spaced = False  # limit: they are evenly spaced over the split, so that classes in order are all there

    def needs_loaded(self) -> list[nn.Module]:
        return [self.model, self.networks]

    @property
    def total(self) -> int:
        return len(self.dataset) if self.limit is None else min(self.limit, len(self.dataset))

    def bind(self, context: RunContext) -> None:
        self.context, self.work_dir = context, context.work_dir

    def setup(self) -> None:
        self.strategy.start()
        self.context.prepare()
        self.strategy.place(self.model)
        check_belongs(self.dataset, self.model)
        self.place_networks()
        seed_everything(self.context.seed, self.strategy.rank)
        for callback in self.callbacks.values():
            callback.bind(self)
        if self.context.announce is not None:
            self.context.announce()

    def about(self) -> dict[str, str]:
        """What a command says of this runner before its work, besides data and model: name -> text."""
        return {}

    def place_networks(self) -> None:
        for network in self.networks.values():
            network.to(self.strategy.device)

    def close(self) -> None:
        self.strategy.stop()

    def run(self) -> dict[str, Any]:
        """One pass between ``setup`` and ``close``."""
        try:
            self.setup()
            return self.evaluate()
        finally:
            self.close()

    @torch.no_grad()
    def evaluate(self) -> dict[str, Any]:
        """The results of one pass over all ranks' samples, on every rank."""
        self.model.eval()
        for metric in self.metrics.values():
            metric.reset()
        for callback in self.callbacks.values():
            callback.before_run()
        self.loss_sums: dict[str, torch.Tensor] = {}
        self.samples, started = 0, time.perf_counter()
        with self.open_loader() as loader, self._bar('validating') as bar:
            for host_batch in loader:
                batch, outputs = self.step(host_batch)
                for metric in self.metrics.values():
                    metric.update(batch, outputs)
                self._add_losses(outputs, len(batch))
                for callback in self.callbacks.values():
                    callback.after_batch(batch, outputs)
                bar.advance(len(batch))
        results = self._results()
        results['seconds'] = round(time.perf_counter() - started, 3)
        results['skipped'] = sum(collectives.all_gather_object(len(self.loader.skipped)))
        for callback in self.callbacks.values():
            callback.after_run()
        return results

    @torch.no_grad()
    def rehearse(self, batches: int, most: int) -> None:
        """A few batches through model and metrics, at most ``most`` samples per rank. No figures: these may need more."""
        self.model.eval()
        for metric in self.metrics.values():
            metric.reset()
        per_rank = min(self.dataloader.per_rank(self.strategy.world_size), max(1, most // batches))
        before, self.limit = self.limit, batches * per_rank * self.strategy.world_size
        read = 0
        try:
            with self.open_loader(per_rank) as loader:
                for host_batch in loader:
                    batch, outputs = self.step(host_batch)
                    read += len(batch)
                    for metric in self.metrics.values():
                        metric.update(batch, outputs)
            if not sum(collectives.all_gather_object(read)) and self.total == len(self.dataset):
                self._refuse_unreadable()
        finally:
            self.limit = before
        for metric in self.metrics.values():
            metric.reset()

    def _refuse_unreadable(self) -> None:
        if self.total:
            raise RunFailure(
                f'none of the {self.total} images of {self.dataset.name}, split {self.dataset.split}, can be read',
                'Repair these files, or hold out others; vq data check FOLDER lists what is wrong with them.',
            )

    def open_loader(self, per_rank: int | None = None) -> Loader:
        """Of the whole split; with ``per_rank``, of batches of that size without worker processes."""
        check_belongs(self.dataset, self.model)
        settings = self.dataloader if per_rank is None else dataclasses.replace(self.dataloader, num_workers=0)
        per_rank = per_rank or settings.per_rank(self.strategy.world_size)
        plan = evaluation_plan(self.total, per_rank, self.strategy.rank, self.strategy.world_size)
        if self.spaced and self.total < len(self.dataset):
            count, total = len(self.dataset), self.total
            plan = ([(epoch, index * count // total) for epoch, index in batch] for batch in plan)
        self.loader = Loader(self.dataset, plan, settings, self.context.seed, training=False)
        return self.loader

    def step(self, host_batch: Batch) -> tuple[Batch, Outputs]:
        batch = self.strategy.to_device(host_batch)
        with self.strategy.autocast():
            return batch, self.model.validation_step(batch)

    def _bar(self, what: str) -> ProgressBar:
        share = -(-self.total // self.strategy.world_size)
        return ProgressBar(what, share, 'images', visible=collectives.is_main())

    def _add_losses(self, outputs: Outputs, count: int) -> None:
        self.samples += count
        for name, value in outputs.losses.items():
            term = value.detach().double() * count
            self.loss_sums[name] = self.loss_sums[name] + term if name in self.loss_sums else term

    def _results(self) -> dict[str, Any]:
        counts = collectives.all_gather_object((self.samples, {name: float(value) for name, value in self.loss_sums.items()}))
        total = sum(count for count, _ in counts)
        if not total:
            self._refuse_unreadable()
        names = sorted({name for _, sums in counts for name in sums})
        results: dict[str, Any] = {'samples': total}
        results.update({f'loss/{name}': sum(sums.get(name, 0.0) for _, sums in counts) / max(total, 1) for name in names})
        for metric in self.metrics.values():
            results.update(metric.compute())
        return results
