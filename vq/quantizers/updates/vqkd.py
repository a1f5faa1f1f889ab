"""VQ-KD's codes: running mean directions."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from vq.core.errors import ConfigError
from vq.quantizers.search import Metric
from vq.quantizers.updates.base import Update, accept, check_decay
from vq.quantizers.updates.observations import Observations
from vq.registries import VQCodebookUpdateRegistry


@VQCodebookUpdateRegistry.register_()
class VQKDUpdate(Update):
    """e_k <- unit(d e_k + (1 - d) unit(mean of the unit features of code k)); a code without features stays.

    (Peng et al. 2022, BEiT v2.) For quantizers with ``normalize=True``. The reference code updates inside forward and
    returns the new codes: ``in_forward=True``.
    """

    by_gradient = False

    def __init__(self, decay: float = 0.99, in_forward: bool = False) -> None:
        super().__init__()
        self.decay = check_decay('VQKDUpdate', decay)
        self.in_forward = in_forward

    def bind(self, codebook: Tensor, metric: Metric) -> None:
        if metric != 'cosine':
            raise ConfigError('VQKDUpdate needs codes of unit length', 'Give the quantizer normalize=True.')
        self.observed = Observations(codebook, with_sums=True)

    def reset(self, codebook: Tensor) -> None:
        self.observed.reset()

    def observe(self, features: Tensor, tokens: Tensor, codebook: Tensor) -> None:
        self.observed.add(features, tokens)

    @torch.no_grad()
    def update(self, codebook: Tensor, ok: Tensor | None) -> None:
        totals = self.observed.collect()
        mean = F.normalize(totals.sums / totals.counts.clamp_min(1)[:, None], dim=1)
        moved = F.normalize(self.decay * F.normalize(codebook, dim=1) + (1 - self.decay) * mean, dim=1)
        accept(codebook, moved, (totals.counts > 0)[:, None] & totals.acceptable(ok))
