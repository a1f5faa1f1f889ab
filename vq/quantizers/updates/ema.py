"""Codes as running means of the vectors assigned to them."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from vq.core.errors import ConfigError
from vq.quantizers.search import Metric
from vq.quantizers.updates.base import Update, accept, check_decay
from vq.quantizers.updates.observations import Observations
from vq.quantizers.updates.restart import Restart
from vq.registries import VQCodebookUpdateRegistry

FADED = 1e-11  # shorter sums have no direction: ``F.normalize`` divides by at least 1e-12


@VQCodebookUpdateRegistry.register_()
class EMAUpdate(Update):
    """N_k <- d N_k + (1 - d) n_k,  m_k <- d m_k + (1 - d) sum of the n_k vectors of code k,  e_k <- m_k / N'_k.

    (van den Oord et al. 2017, appendix A.) N'_k = (N_k + eps) / (N + K eps) N with N the sum of all N_k: Laplace
    smoothing that keeps the total. N_k starts at 1 and m_k at the initial code. With a cosine distance e_k is the direction of
    m_k, at unit length; m_k of an unused code fades to zero, and the code keeps its direction. ``restart`` moves dead codes to
    observed vectors in the same step.

    ``smoothing='images'`` is the formula of the VQ-VAE/GAN study's code, for training its checkpoints further: N'_k =
    (N_k + eps) B / (B + K eps) with B the images of the step, and N_k is set to N'_k. This shrinks the counts in every step:
    they settle at 1 / (1 + d K eps / (B (1 - d))) of the true counts (0.95 for d = 0.95, K = 4096, B = 16), and codes are
    too long by the inverse of this factor.
    """

    by_gradient = False
    count: Tensor  # (K,) N
    sums: Tensor  # (K, C) m

    def __init__(
        self,
        decay: float = 0.99,
        eps: float = 1e-5,
        restart: Restart | None = None,
        smoothing: Literal['total', 'images'] = 'total',
    ) -> None:
        super().__init__()
        if smoothing not in ('total', 'images'):
            raise ConfigError(f"smoothing is '{smoothing}'", "It is 'total' or, for the study's checkpoints, 'images'.")
        self.smoothing = smoothing
        self.decay = check_decay('EMAUpdate', decay)
        self.eps = eps
        self.restart = restart

    def bind(self, codebook: Tensor, metric: Metric) -> None:
        self.unit_length = metric == 'cosine'
        self.register_buffer('count', torch.ones_like(codebook[:, 0]))
        self.register_buffer('sums', codebook.detach().clone())
        draw = {} if self.restart is None else {'candidates': self.restart.candidates, 'seed': self.restart.seed}
        self.observed = Observations(codebook, with_sums=True, **draw)

    def reset(self, codebook: Tensor) -> None:
        self.count.fill_(1)
        self.sums.copy_(codebook)
        self.observed.reset()

    def observe(self, features: Tensor, tokens: Tensor, codebook: Tensor, images: int) -> None:
        self.observed.add(features, tokens, images)

    def restarted(self, codebook: Tensor, rows: Tensor) -> None:
        accept(self.count, self.count.mean(), rows)
        accept(self.sums, codebook * self.count[:, None], rows[:, None])

    def _directions(self, sums: Tensor, codebook: Tensor) -> Tensor:
        """Sums (K, C) at unit length; the direction of the code where a sum has faded."""
        faded = torch.linalg.vector_norm(sums, float('inf'), dim=1, keepdim=True) < FADED
        return F.normalize(torch.where(faded, codebook, sums), dim=1)

    @torch.no_grad()
    def update(self, codebook: Tensor, ok: Tensor | None) -> None:
        totals = self.observed.collect()
        ok = totals.acceptable(ok)
        count = self.decay * self.count + (1 - self.decay) * totals.counts
        sums = self.decay * self.sums + (1 - self.decay) * totals.sums
        total = count.sum() if self.smoothing == 'total' else totals.images
        smooth = (count + self.eps) / (total + len(count) * self.eps) * total
        if self.smoothing == 'images':
            count = smooth
        codes = self._directions(sums, codebook) if self.unit_length else sums / smooth[:, None]
        if self.restart is not None:
            count, codes, restarted = self.restart.apply(count, codes, totals)
            sums = torch.where(restarted[:, None], codes * count[:, None], sums)
            if self.unit_length:
                codes = torch.where(restarted[:, None], F.normalize(codes, dim=1), codes)
        accept(self.count, count, ok)
        accept(self.sums, sums, ok)
        accept(codebook, codes, ok)
        self.observed.advance(ok)
