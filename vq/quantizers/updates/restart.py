"""Restarts: dead codes move to features of the current step."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from vq.core.errors import ConfigError
from vq.quantizers.search import Metric
from vq.quantizers.updates.base import Update, accept, check_decay
from vq.quantizers.updates.observations import Observations, Totals
from vq.registries import VQCodebookUpdateRegistry


@dataclasses.dataclass
class Restart:
    """A code is dead when its running count is below ``threshold`` times the mean count of all codes.

    At most ``candidates`` codes restart per step, the lowest counts first. Every rank sends as many vectors.
    """

    threshold: float = 0.1
    candidates: int = 256
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.threshold < 1:
            raise ConfigError(f'restart threshold {self.threshold}', 'It is a fraction of the mean count: between 0 and 1.')
        if self.candidates < 1:
            raise ConfigError(f'{self.candidates} restart candidates', 'At least 1 vector per step is needed.')

    def apply(self, count: Tensor, codes: Tensor, totals: Totals) -> tuple[Tensor, Tensor, Tensor]:
        """(new count (K,), new codes (K, C), which codes restarted (K,) bool). Candidates are used in their order.

        A restarted code gets the mean count: if it stays unused, it is dead only after as many steps as an average code.
        """
        poorest = torch.argsort(count, stable=True)[: self.candidates]  # stable: ties have the same order on every rank
        mean = count.mean()
        dead = totals.valid[: len(poorest)] & (count[poorest] < self.threshold * mean)
        new_count = torch.where(dead, mean, count[poorest])
        new_codes = torch.where(dead[:, None], totals.candidates[: len(poorest)], codes[poorest])
        return (
            count.index_copy(0, poorest, new_count),
            codes.index_copy(0, poorest, new_codes),
            torch.zeros_like(count, dtype=torch.bool).index_copy(0, poorest, dead),
        )


@VQCodebookUpdateRegistry.register_()
class RestartUnused(Update):
    """n_k <- d n_k + (1 - d) c_k;  where n_k < threshold mean(n):  e_k <- an observed vector,  n_k <- mean(n).

    c_k counts the uses of code k in the step. Between restarts gradients train the codes; for EMA codes use
    ``EMAUpdate(restart=dict(...))``. The optimizer moments of a restarted code are not reset.
    """

    count: Tensor  # (K,) n

    def __init__(self, threshold: float = 0.1, decay: float = 0.99, candidates: int = 256, seed: int = 0) -> None:
        super().__init__()
        self.restart = Restart(threshold, candidates, seed)
        self.decay = check_decay('RestartUnused', decay)

    def bind(self, codebook: Tensor, metric: Metric) -> None:
        self.register_buffer('count', torch.ones_like(codebook[:, 0], requires_grad=False))
        self.observed = Observations(codebook, with_sums=False, candidates=self.restart.candidates, seed=self.restart.seed)

    def reset(self, codebook: Tensor) -> None:
        self.count.fill_(1)
        self.observed.reset()

    def observe(self, features: Tensor, tokens: Tensor, codebook: Tensor, images: int) -> None:
        self.observed.add(features, tokens)

    def restarted(self, codebook: Tensor, rows: Tensor) -> None:
        accept(self.count, self.count.mean(), rows)

    @torch.no_grad()
    def update(self, codebook: Tensor, ok: Tensor | None) -> None:
        totals = self.observed.collect()
        ok = totals.acceptable(ok)
        count = self.decay * self.count + (1 - self.decay) * totals.counts
        count, codes, _ = self.restart.apply(count, codebook, totals)
        accept(self.count, count, ok)
        accept(codebook, codes, ok)
        self.observed.advance(ok)
