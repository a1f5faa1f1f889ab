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

    (Peng et al. 2022, BEiT v2.) For quantizers with ``normalize=True``. ``count`` is the running mean of the number of
    features per code and step, N_k <- d N_k + (1 - d) n_k from 0. BEiT v2 has it too; codes do not depend on it. By default
    forward returns the codes before the update, as BEiT v2's code does. With ``in_forward=True`` it updates first and returns
    the new codes, as the code of the cluster tokenizers does.
    """

    by_gradient = False
    count: Tensor  # (K,) N

    def __init__(self, decay: float = 0.99, in_forward: bool = False) -> None:
        super().__init__()
        self.decay = check_decay('VQKDUpdate', decay)
        self.in_forward = in_forward

    def bind(self, codebook: Tensor, metric: Metric) -> None:
        if metric != 'cosine':
            raise ConfigError('VQKDUpdate needs codes of unit length', 'Give the quantizer normalize=True.')
        self.register_buffer('count', torch.zeros_like(codebook[:, 0], requires_grad=False))
        self.observed = Observations(codebook, with_sums=True)

    def reset(self, codebook: Tensor) -> None:
        self.count.zero_()
        self.observed.reset()

    def observe(self, features: Tensor, tokens: Tensor, codebook: Tensor, images: int) -> None:
        self.observed.add(features, tokens)

    def restarted(self, codebook: Tensor, rows: Tensor) -> None:
        accept(self.count, self.count.mean(), rows)

    @torch.no_grad()
    def update(self, codebook: Tensor, ok: Tensor | None) -> None:
        totals = self.observed.collect()
        mean = F.normalize(totals.sums / totals.counts.clamp_min(1)[:, None], dim=1)
        moved = F.normalize(self.decay * F.normalize(codebook, dim=1) + (1 - self.decay) * mean, dim=1)
        ok = totals.acceptable(ok)
        accept(codebook, moved, (totals.counts > 0)[:, None] & ok)
        accept(self.count, self.decay * self.count + (1 - self.decay) * totals.counts, ok)
