"""CVQ-VAE: codes that are hardly used move towards features."""

from __future__ import annotations

import torch
from torch import Tensor

from vq.core.errors import ConfigError
from vq.quantizers.search import Metric
from vq.quantizers.updates.anchors import AnchorKind, Anchors, CachedAnchors, MultinomialAnchors, NearestAnchors
from vq.quantizers.updates.base import Update, accept, check_decay
from vq.registries import VQCodebookUpdateRegistry


@VQCodebookUpdateRegistry.register_()
class CVQUpdate(Update):
    """p <- d p + (1 - d) f,  a_k = exp(-10 K p_k / (1 - d) - eps),  e_k <- (1 - a_k) e_k + a_k z_k.

    (Zheng and Vedaldi 2023, eq. 3 to 5.) f is the fraction of the step's vectors assigned to each code, p starts at 0, and
    z_k is the anchor of code k among the vectors of the global batch. Gradients train the codes as well. By default forward
    returns the codes before the update, as the authors' code does. With ``in_forward=True`` it updates first and returns the
    new codes, as the code of the cluster tokenizers does.

    - ``anchor``: 'nearest', the feature nearest to the code; 'multinomial', a feature drawn with the probability softmax of
      the similarity, -|x - e_k|^2 or the cosine (the authors' 'probrandom'; takes K x N random numbers, drawn in tiles);
      'cached', a random feature; with fewer features than codes, some codes keep the feature of an earlier step.
    - ``seed``: the seed of the draws.

    Two collectives per step.
    """

    probability: Tensor  # (K,) p
    counts: Tensor  # (K,) vectors per code in this step, on this rank
    anchors: Anchors

    def __init__(
        self,
        decay: float = 0.99,
        anchor: AnchorKind = 'nearest',
        eps: float = 1e-3,
        in_forward: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if anchor not in ('nearest', 'multinomial', 'cached'):
            raise ConfigError(f"anchor is '{anchor}'", "It is 'nearest', 'multinomial' or 'cached'.")
        self.decay = check_decay('CVQUpdate', decay)
        self.anchor = anchor
        self.eps = eps
        self.in_forward = in_forward
        self.seed = seed

    def bind(self, codebook: Tensor, metric: Metric) -> None:
        weight = codebook.detach()
        self.register_buffer('probability', torch.zeros_like(weight[:, 0]))
        self.register_buffer('counts', torch.zeros_like(weight[:, 0]), persistent=False)
        if self.anchor == 'cached':
            self.anchors = CachedAnchors(weight, self.seed)
        elif self.anchor == 'multinomial':
            self.anchors = MultinomialAnchors(weight, metric, self.seed)
        else:
            self.anchors = NearestAnchors(weight, metric)

    def reset(self, codebook: Tensor) -> None:
        self.probability.zero_()
        self.counts.zero_()
        self.anchors.reset(codebook)

    @torch.no_grad()
    def observe(self, features: Tensor, tokens: Tensor, codebook: Tensor, images: int) -> None:
        if not len(features):
            return  # no feature can be an anchor
        self.counts.index_add_(0, tokens, torch.ones_like(features[:, 0]))
        self.anchors.add(features, codebook)

    def restarted(self, codebook: Tensor, rows: Tensor) -> None:
        accept(self.probability, self.probability.mean(), rows)

    @torch.no_grad()
    def update(self, codebook: Tensor, ok: Tensor | None) -> None:
        anchors, counts = self.anchors.collect(self.counts)
        self.anchors.clear()
        self.counts.zero_()
        seen = counts.sum() > 0
        ok = seen if ok is None else seen & ok
        probability = self.decay * self.probability + (1 - self.decay) * counts / counts.sum()
        move = torch.exp(-10 * len(codebook) * probability / (1 - self.decay) - self.eps)[:, None]
        accept(codebook, (1 - move) * codebook + move * anchors, ok)
        accept(self.probability, probability, ok)
        self.anchors.advance(anchors, ok)
