"""What a run says of itself every ``interval`` steps: a JSON line always, and a line of text."""

from __future__ import annotations

import logging
import resource
import sys
import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from vq.core import collectives
from vq.core.records import Losses
from vq.interfaces import Callback
from vq.registries import VQCallbackRegistry

logger = logging.getLogger('vq')


@VQCallbackRegistry.register_()
class LogCallback(Callback):
    """Means of all losses over the interval and over ranks, learning rates, speed, waiting, memory, time left.

    Losses are summed on the device and read once per interval; the guard is read at the same moment.
    """

    def __init__(self, interval: int = 50) -> None:
        self.interval = interval
        self.sums: dict[str, Tensor] = {}  # optimizer -> sum per term and of the total, over the interval so far
        self.counts: dict[str, int] = {}
        self.terms: dict[str, list[str]] = {}

    def before_run(self) -> None:
        self._start_interval()

    def _start_interval(self) -> None:
        self.started, self.first_step = time.perf_counter(), self.runner.step
        self.runner.data_seconds = 0.0

    def after_losses(self, name: str, losses: Losses) -> None:
        self.terms[name] = [*losses.values, 'total']
        values = torch.stack([*(value.detach().float() for value in losses.values.values()), losses.total.detach()])
        self.sums[name] = self.sums[name] + values if name in self.sums else values
        self.counts[name] = self.counts.get(name, 0) + 1

    def after_step(self) -> None:
        if self.runner.step % self.interval == 0 or self.runner.step == self.runner.iters:
            self.flush()

    def flush(self) -> None:
        runner = self.runner
        runner.guard.check()
        values: dict[str, Any] = {'epoch': round(runner.epoch, 4), 'samples': runner.samples_seen, **self._means()}
        norms = [*runner.gradient_norms]
        if norms:
            values['gradient_norm'] = dict(
                zip(norms, torch.stack([runner.gradient_norms[n].float() for n in norms]).tolist(), strict=True)
            )
        values['lr'] = {name: optimizer.param_groups[0]['lr'] for name, optimizer in runner.optimizers.items()}
        values['timing'] = timing = self._timing()
        runner.journal.write(runner.step, 'train', values)
        if collectives.is_main():
            logger.info('%s', self._line(values, timing))
        self._start_interval()

    def _means(self) -> dict[str, float]:
        names = [*self.sums]
        if not names:
            return {}
        joined = torch.cat([self.sums[name] / self.counts[name] for name in names])
        means = (collectives.all_reduce(joined) / collectives.size()).tolist()
        several, found, position = len(names) > 1, {}, 0
        for name in names:
            for term in self.terms[name]:
                found[f'{name}/{term}' if several else term] = means[position]
                position += 1
        self.sums.clear()
        self.counts.clear()
        return found

    def _timing(self) -> dict[str, float]:
        runner = self.runner
        seconds, steps = max(time.perf_counter() - self.started, 1e-9), max(runner.step - self.first_step, 1)
        device = runner.strategy.device
        memory = (
            torch.cuda.max_memory_allocated(device) / 2**20
            if device.type == 'cuda'
            else (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform != 'darwin' else 2**20))
        )
        return {
            'images_per_second': round(steps * runner.batch_size / seconds, 2),
            'seconds_per_step': round(seconds / steps, 5),
            'data_wait': round(runner.data_seconds / seconds, 4),
            'memory_mb': round(memory),
            'eta_seconds': round((runner.iters - runner.step) * seconds / steps, 1),
        }

    def _line(self, values: Mapping[str, Any], timing: Mapping[str, float]) -> str:
        losses = '  '.join(
            f'{name} {value:.4f}' for name, value in values.items() if isinstance(value, float) and name != 'epoch'
        )
        minutes, seconds = divmod(int(timing['eta_seconds']), 60)
        hours, minutes = divmod(minutes, 60)
        rates = '  '.join(f'{rate:.3g}' for rate in values['lr'].values())
        return (
            f'[{self.runner.step}/{self.runner.iters}]  {losses}  lr {rates}  {timing["images_per_second"]:.1f} img/s  '
            f'wait {100 * timing["data_wait"]:.0f}%  {timing["memory_mb"]:.0f} MB  eta {hours}:{minutes:02d}:{seconds:02d}'
        )

    def rank_state_dict(self) -> dict[str, Any]:
        """The open interval, so that a resumed run logs the same means."""
        return {
            'sums': {name: value.cpu() for name, value in self.sums.items()},
            'counts': dict(self.counts),
            'terms': {name: list(terms) for name, terms in self.terms.items()},
        }

    def load_rank_state_dict(self, state: Mapping[str, Any]) -> None:
        self.sums = {name: value.to(self.runner.strategy.device) for name, value in state['sums'].items()}
        self.counts, self.terms = dict(state['counts']), dict(state['terms'])
