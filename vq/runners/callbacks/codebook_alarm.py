"""Logs the codebook usage of a training, and warns with remedies if it is low."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from vq.core import collectives
from vq.core.records import Batch, Outputs
from vq.interfaces import Callback
from vq.metrics.codebook import number_codes, usage
from vq.registries import VQCallbackRegistry
from vq.runners.protocol import TrainerLike

logger = logging.getLogger('vq')

REMEDIES = (
    'Remedies, compared in docs/quantizers.md: an EMA codebook with restarts of unused codes, CVQ anchors, k-means '
    'initialisation, normalised codes of low dimension (8 to 32), or a quantizer without a codebook (FSQ).'
)


@VQCallbackRegistry.register_()
class CodebookAlarmCallback(Callback[TrainerLike]):
    """Counts tokens on the device. Every ``interval`` steps it writes usage, perplexity and dead codes of these steps.

    If usage is below ``threshold``, a warning names remedies. A few steps cannot hit every code of a large codebook, so
    usage is compared with the share that M tokens drawn uniformly from K codes would hit, 1 - (1 - 1/K)^M. If tokens come
    from several codebooks, the warning is about the worst one.
    """

    phase = 'alarm'

    def __init__(self, interval: int = 500, threshold: float = 0.5) -> None:
        self.interval, self.threshold = interval, threshold
        self.counts: Tensor | None = None

    def bind(self, runner: TrainerLike) -> None:
        super().bind(runner)
        self.sizes = list(getattr(runner.model, 'codebooks', ()))
        self.counts = torch.zeros(sum(self.sizes), dtype=torch.int64, device=runner.strategy.device) if self.sizes else None
        self.one = torch.ones(1, dtype=torch.int64, device=runner.strategy.device)

    def after_batch(self, batch: Batch, outputs: Outputs) -> None:
        if self.counts is not None and outputs.tokens is not None:
            tokens = number_codes(outputs.tokens, self.sizes).flatten()
            self.counts.scatter_add_(0, tokens, self.one.expand_as(tokens))

    def after_step(self) -> None:
        if self.counts is None or self.runner.step % self.interval:
            return
        counts = collectives.all_reduce(self.counts).clone().cpu()  # with one rank all_reduce returns its input
        self.counts.zero_()
        figures = usage(counts, self.sizes)
        line = {
            name.removeprefix('codebook_'): int(value) if name.startswith('dead') else value
            for name, value in figures.items()
            if 'entropy' not in name
        }
        self.runner.journal.write(self.runner.step, 'codebook', {**line, 'tokens': int(counts.sum())})
        split_counts = torch.split(counts, self.sizes)
        shares = [float((count > 0).double().mean()) for count in split_counts]
        reachable = [1 - (1 - 1 / len(count)) ** float(count.sum()) for count in split_counts]
        worst = min(range(len(split_counts)), key=lambda index: shares[index] / max(reachable[index], 1e-12))
        if shares[worst] < self.threshold * reachable[worst] and collectives.is_main():
            logger.warning(
                'codebook alarm at step %d: %.1f %% of %d codes%s were used in the last %d steps (perplexity %.1f). %s',
                self.runner.step,
                100 * shares[worst],
                len(split_counts[worst]),
                f' of codebook {worst + 1}' if len(split_counts) > 1 else '',
                self.interval,
                usage(split_counts[worst])['perplexity'],
                REMEDIES,
            )

    def rank_state_dict(self) -> dict[str, Any]:
        return {} if self.counts is None else {'counts': self.counts.cpu()}

    def load_rank_state_dict(self, state: Mapping[str, Any]) -> None:
        if self.counts is not None and 'counts' in state and state['counts'].shape == self.counts.shape:
            self.counts.copy_(state['counts'])
