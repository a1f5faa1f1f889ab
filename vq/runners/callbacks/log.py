"""The log of a run: every ``interval`` steps a line of JSON, and on the main rank a line of text."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from vq.core import collectives
from vq.core.records import Losses
from vq.interfaces import Callback
from vq.registries import VQCallbackRegistry
from vq.runners.optimizers import rate_of
from vq.runners.protocol import TrainerLike
from vq.runners.usage import Usage
from vq.tasks.terms import TOTAL

logger = logging.getLogger('vq')

Key = tuple[str, tuple[str, ...]]


@VQCallbackRegistry.register_()
class LogCallback(Callback[TrainerLike]):
    """Means of all losses over the interval and over ranks, learning rates, speed, wait for data, time left, and what the
    process uses of its machine (``Usage``).

    Losses are logged with their weights, and averaged over all steps of their optimizer, so that they add up to ``total``.
    ``weights`` are those that are numbers other than 1. A note that some steps lack is averaged over the steps that have it.
    Losses are summed on the device. One host sync per interval reads them and the guard.
    """

    phase = 'log'

    def __init__(self, interval: int = 50) -> None:
        self.interval = interval
        # (optimizer, terms) -> sum per term over the interval so far, and over how many micro-batches
        self.sums: dict[Key, Tensor] = {}
        self.counts: dict[Key, int] = {}
        self.weights: dict[str, dict[str, float]] = {}  # optimizer -> weights of its terms in this interval

    def before_run(self) -> None:
        self.usage = Usage(self.runner.strategy.device)
        self._start_interval()

    def _start_interval(self) -> None:
        self.started, self.first_step, self.waited = time.perf_counter(), self.runner.step, self.runner.data_seconds
        self.usage.start()

    def after_losses(self, name: str, losses: Losses) -> None:
        weights = self.weights.setdefault(name, {})
        weights.update((term, weight) for term, weight in losses.weights.items() if not isinstance(weight, Tensor))
        others = torch.stack([losses.total.detach(), *(note.detach().float() for note in losses.notes.values())])
        values = torch.cat([losses.joined[: len(losses.values)], others])
        key = name, (*losses.values, TOTAL, *losses.notes)
        if key not in self.sums:  # zeros made on the device would be another graph to compile than sums
            self.sums[key] = torch.zeros(len(values)).to(values.device, non_blocking=True)
        self.sums[key] = self.sums[key] + values
        self.counts[key] = self.counts.get(key, 0) + 1

    def after_step(self) -> None:
        if self.runner.step % self.interval == 0 or self.runner.step == self.runner.iters:
            self.flush()

    def flush(self) -> None:
        runner = self.runner
        runner.guard.check()
        values: dict[str, Any] = {'epoch': round(runner.epoch, 4), 'samples': runner.samples_seen, **self._means()}
        norms = [*runner.gradient_norms]
        if norms:
            joined = runner.strategy.joined([runner.gradient_norms[name].float().reshape(1) for name in norms])
            values['gradient_norm'] = dict(zip(norms, joined.tolist(), strict=True))
        if weights := self._weights():
            values['weights'] = weights
        values['lr'] = {name: rate_of(optimizer.param_groups[0]) for name, optimizer in runner.optimizers.items()}
        values['timing'] = timing = self._timing()
        runner.journal.write(runner.step, 'train', values)
        if collectives.is_main():
            logger.info('%s', self._line(values, timing))
        self._start_interval()

    def _means(self) -> dict[str, float]:
        if not self.sums:
            return {}
        joined = self.runner.strategy.joined([*self.sums.values()])
        sums = (collectives.all_reduce(joined) / collectives.size()).tolist()
        totals: dict[str, float] = {}
        counts: dict[str, int] = {}
        for (optimizer, term, whole), value, count in zip(
            (
                (optimizer, term, place <= terms.index(TOTAL))
                for optimizer, terms in self.sums
                for place, term in enumerate(terms)
            ),
            sums,
            (self.counts[key] for key in self.sums for _ in key[1]),
            strict=True,
        ):
            name = self._name(optimizer, term)
            of_optimizer = sum(number for (other, _), number in self.counts.items() if other == optimizer)
            totals[name] = totals.get(name, 0.0) + value
            counts[name] = of_optimizer if whole else counts.get(name, 0) + count
        self.sums.clear()
        self.counts.clear()
        return {name: totals[name] / counts[name] for name in totals}

    def _name(self, optimizer: str, term: str) -> str:
        """With several optimizers, also before the second one takes its first step, with the optimizer's name."""
        return f'{optimizer}/{term}' if len(self.runner.optimizers) > 1 else term

    def _weights(self) -> dict[str, float]:
        found = {self._name(name, term): value for name, terms in self.weights.items() for term, value in terms.items()}
        self.weights.clear()
        return {name: value for name, value in found.items() if value != 1}

    def _timing(self) -> dict[str, float]:
        runner = self.runner
        seconds, steps = max(time.perf_counter() - self.started, 1e-9), max(runner.step - self.first_step, 1)
        return {
            'images_per_second': round(steps * runner.batch_size / seconds, 2),
            'seconds_per_step': round(seconds / steps, 5),
            'data_wait': round((runner.data_seconds - self.waited) / seconds, 4),
            **self.usage.figures(),
            'eta_seconds': round((runner.iters - runner.step) * seconds / steps, 1),
        }

    def _line(self, values: Mapping[str, Any], timing: Mapping[str, float]) -> str:
        losses = '  '.join(
            f'{name} {value:.4f}' for name, value in values.items() if isinstance(value, float) and name != 'epoch'
        )
        minutes, seconds = divmod(int(timing['eta_seconds']), 60)
        hours, minutes = divmod(minutes, 60)
        rates = '  '.join(f'{rate:.3g}' for rate in values['lr'].values())
        used = f'{timing["memory_mb"]:.0f} MB'
        if 'device_utilization' in timing:
            used += f'  GPU {100 * timing["device_utilization"]:.0f}%'
        return (
            f'[{self.runner.step}/{self.runner.iters}]  {losses}  lr {rates}  {timing["images_per_second"]:.1f} img/s  '
            f'wait {100 * timing["data_wait"]:.0f}%  {used}  eta {hours}:{minutes:02d}:{seconds:02d}'
        )

    def rank_state_dict(self) -> dict[str, Any]:
        """The sums of the interval that is not over, so that a resumed run logs the same means."""
        sums = [[*key, value.cpu(), self.counts[key]] for key, value in self.sums.items()]
        return {'weighted': sums, 'weights': {name: dict(terms) for name, terms in self.weights.items()}}

    def load_rank_state_dict(self, state: Mapping[str, Any]) -> None:
        device, found = self.runner.strategy.device, state.get('weighted', [])  # older versions kept sums without weights
        self.sums = {(name, tuple(terms)): value.to(device) for name, terms, value, _ in found}
        self.counts = {(name, tuple(terms)): count for name, terms, _, count in found}
        self.weights = {name: dict(terms) for name, terms in state.get('weights', {}).items()}
