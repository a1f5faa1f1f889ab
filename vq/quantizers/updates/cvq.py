"""CVQ-VAE: codes that are hardly used move towards features."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from vq.core import collectives
from vq.core.errors import ConfigError
from vq.quantizers.search import Metric, nearest_feature
from vq.quantizers.updates.base import Update, accept, check_decay
from vq.registries import VQCodebookUpdateRegistry


@VQCodebookUpdateRegistry.register_()
class CVQUpdate(Update):
    """p <- d p + (1 - d) f,  a_k = exp(-10 K p_k / (1 - d) - eps),  e_k <- (1 - a_k) e_k + a_k z_k.

    (Zheng and Vedaldi 2023, eq. 3 to 5.) f is the share of the step's vectors that went to each code, p starts at 0,
    and the anchor z_k is the feature of the global batch nearest to code k. Codes learn by gradient as well. The
    reference code updates inside forward and returns the new codes: ``in_forward=True``.

    Two collectives per step: the distances of each rank's anchors first, so that only the nearest anchors travel. One
    alone would have to gather the anchors of every rank: the size of the codebook times the number of ranks.
    """

    probability: Tensor  # (K,) p
    counts: Tensor  # (K,) vectors per code in this step, on this rank
    anchors: Tensor  # (K, C) the nearest features so far in this step, on this rank
    distance: Tensor  # (K,) their squared distances

    def __init__(
        self, decay: float = 0.99, anchor: Literal['nearest'] = 'nearest', eps: float = 1e-3, in_forward: bool = False
    ) -> None:
        super().__init__()
        if anchor != 'nearest':
            raise ConfigError(f"anchor is '{anchor}'", "It is 'nearest'.")
        self.decay = check_decay('CVQUpdate', decay)
        self.anchor = anchor
        self.eps = eps
        self.in_forward = in_forward

    def bind(self, codebook: Tensor, metric: Metric) -> None:
        self.metric: Metric = metric
        weight = codebook.detach()
        self.register_buffer('probability', torch.zeros_like(weight[:, 0]))
        self.register_buffer('counts', torch.zeros_like(weight[:, 0]), persistent=False)
        self.register_buffer('anchors', torch.zeros_like(weight), persistent=False)
        self.register_buffer('distance', torch.full_like(weight[:, 0], torch.inf), persistent=False)

    def reset(self, codebook: Tensor) -> None:
        self.probability.zero_()
        self._forget()

    @torch.no_grad()
    def observe(self, features: Tensor, tokens: Tensor, codebook: Tensor) -> None:
        self.counts.index_add_(0, tokens, torch.ones_like(features[:, 0]))
        anchors = features[nearest_feature(features, codebook, self.metric)]  # (K, C)
        distance = self._distance(anchors, codebook)
        nearer = distance < self.distance  # strictly: the first of equals stays, as in one large batch
        accept(self.anchors, anchors, nearer[:, None])
        accept(self.distance, distance, nearer)

    def _distance(self, anchors: Tensor, codebook: Tensor) -> Tensor:
        """(K, C), (K, C) -> squared distances (K,), between directions for the cosine."""
        if self.metric == 'cosine':
            anchors, codebook = F.normalize(anchors, dim=1), F.normalize(codebook, dim=1)
        return (anchors - codebook).square().sum(1)

    @torch.no_grad()
    def update(self, codebook: Tensor, ok: Tensor | None) -> None:
        nearest = collectives.all_reduce(self.distance, 'min')
        mine = (self.distance == nearest).to(codebook.dtype)  # (K,) 1 or 0; 1 on several ranks only where they tie exactly
        totals = collectives.all_reduce(torch.cat([self.anchors * mine[:, None], mine[:, None], self.counts[:, None]], dim=1))
        anchors = totals[:, :-2] / totals[:, -2:-1]  # ties: their mean, the same on every rank
        counts = totals[:, -1]
        self._forget()

        seen = counts.sum() > 0
        ok = seen if ok is None else seen & ok
        probability = self.decay * self.probability + (1 - self.decay) * counts / counts.sum()
        move = torch.exp(-10 * len(codebook) * probability / (1 - self.decay) - self.eps)[:, None]
        accept(codebook, (1 - move) * codebook + move * anchors, ok)
        accept(self.probability, probability, ok)

    def _forget(self) -> None:
        self.counts.zero_()
        self.anchors.zero_()
        self.distance.fill_(torch.inf)
