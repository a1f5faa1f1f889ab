"""Watches how much of the codebook training uses, and says what to do when it dies."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from vq.core import collectives
from vq.core.records import Batch, Outputs
from vq.interfaces import Callback
from vq.registries import VQCallbackRegistry

logger = logging.getLogger('vq')

REMEDIES = (
    'Remedies: an EMA codebook with restarts of unused codes, CVQ anchors, k-means initialisation, normalised codes of '
    'low dimension (8 to 32), or a quantizer without a codebook (FSQ).'
)


@VQCallbackRegistry.register_()
class CodebookAlarmCallback(Callback):
    """Counts tokens on the device; every ``interval`` steps writes usage, perplexity and dead codes of that window.

    Below ``threshold`` usage a warning names the remedies. A window too short to hit every code is judged by what it
    could hit: with M tokens drawn evenly from K codes, 1 - (1 - 1/K)^M of them appear.
    """

    def __init__(self, interval: int = 500, threshold: float = 0.5) -> None:
        self.interval, self.threshold = interval, threshold
        self.counts: Tensor | None = None

    def bind(self, runner: Any) -> None:
        super().bind(runner)
        self.codes = int(getattr(runner.model, 'codebook_size', 0))
        self.counts = torch.zeros(self.codes, dtype=torch.int64, device=runner.strategy.device) if self.codes else None

    def after_batch(self, batch: Batch, outputs: Outputs) -> None:
        if self.counts is not None and outputs.tokens is not None:
            tokens = outputs.tokens.flatten()
            self.counts.scatter_add_(0, tokens, torch.ones_like(tokens))

    def after_step(self) -> None:
        if self.counts is None or self.runner.step % self.interval:
            return
        counts = collectives.all_reduce(self.counts).double().cpu()
        self.counts.zero_()
        usage = float((counts > 0).double().mean())
        probability = counts / counts.sum().clamp(min=1)
        perplexity = float(torch.exp(-torch.special.xlogy(probability, probability).sum()))
        self.runner.journal.write(
            self.runner.step,
            'codebook',
            {'usage': usage, 'perplexity': perplexity, 'dead_codes': int((counts == 0).sum()), 'tokens': int(counts.sum())},
        )
        reachable = 1 - (1 - 1 / self.codes) ** float(counts.sum())
        if usage < self.threshold * reachable and collectives.is_main():
            logger.warning(
                'codebook alarm at step %d: %.1f %% of %d codes were used in the last %d steps (perplexity %.1f). %s',
                self.runner.step,
                100 * usage,
                self.codes,
                self.interval,
                perplexity,
                REMEDIES,
            )

    def rank_state_dict(self) -> dict[str, Any]:
        return {} if self.counts is None else {'counts': self.counts.cpu()}

    def load_rank_state_dict(self, state: Mapping[str, Any]) -> None:
        if self.counts is not None and 'counts' in state and state['counts'].shape == self.counts.shape:
            self.counts.copy_(state['counts'])
