"""Vector quantization: every feature becomes its nearest code."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from vq.core.errors import ConfigError
from vq.core.records import Quantized
from vq.interfaces import CodebookUpdate, Quantizer
from vq.nn.precision import no_autocast
from vq.quantizers.codebook import Codebook, Init
from vq.quantizers.contrastive import ContrastiveLoss
from vq.quantizers.entropy import EntropyLoss
from vq.quantizers.gradients import Gradient, check_gradient, pass_gradient
from vq.quantizers.search import Metric, nearest_code
from vq.quantizers.updates.base import Update
from vq.registries import VQQuantizerRegistry


def unit_length(x: Tensor) -> Tensor:
    """x / |x| (..., C). A vector of zeros stays, and gets no gradient, because it has no direction."""
    return F.normalize(torch.where((x.detach() == 0).all(-1, keepdim=True), x.detach(), x), dim=-1)


@VQQuantizerRegistry.register_()
class VectorQuantizer(Quantizer):
    """k = argmin_k |x - c_k|,  z = x + sg(c_k - x),  losses mse(c_k, sg(x)) and mse(sg(c_k), x).

    (van den Oord et al. 2017, eq. 1 to 3.) ``losses`` are the unweighted terms 'codebook' and 'commitment', means over all
    elements; ``loss_weights`` holds their weights. If ``update`` moves the codes without gradients (EMA, VQ-KD), the
    codebook is a buffer and the term 'codebook' is left out.

    - ``distance``: 'l2', or 'cosine' (the code at the smallest angle, returned at its own length).
    - ``normalize``: features and codes are scaled to unit length first, also by ``lookup``; then both distances agree.
    - ``update``: a rule that moves the codes once per optimizer step, in place of gradients or in addition to them.
    - ``gradient``: how z passes gradients to x, straight-through or by the rotation trick.
    - ``entropy``: settings of an entropy loss on soft assignments; the term 'entropy', in training only.
    - ``contrastive``: settings of CVQ-VAE's loss that pulls codes to features; the term 'contrastive', in training only.
    """

    def __init__(
        self,
        codebook_size: int,
        embedding_dim: int,
        distance: Metric = 'l2',
        normalize: bool = False,
        codebook_weight: float = 1.0,
        commitment_weight: float = 0.25,
        init: Init = 'uniform',
        update: CodebookUpdate | None = None,
        gradient: Gradient = 'straight_through',
        entropy: EntropyLoss | None = None,
        contrastive: ContrastiveLoss | None = None,
    ) -> None:
        super().__init__()
        if distance not in ('l2', 'cosine'):
            raise ConfigError(f"distance is '{distance}'", "It is 'l2' or 'cosine'.")
        if update is not None and not isinstance(update, Update):
            raise ConfigError(
                f'{type(update).__name__} is not a codebook update', 'Derive it from vq.quantizers.updates.base.Update.'
            )
        self.codebook_size = codebook_size
        self.embedding_dim = embedding_dim
        self.normalize = normalize
        self.metric: Metric = 'cosine' if normalize else distance
        by_gradient = update is None or update.by_gradient
        self.codebook = Codebook(codebook_size, embedding_dim, trainable=by_gradient, init=init)
        self.codebook_update = update
        self.updates_in_forward = update is not None and update.in_forward
        self.loss_weights = {'codebook': codebook_weight} if by_gradient else {}
        self.loss_weights['commitment'] = commitment_weight
        self.gradient: Gradient = check_gradient(gradient)
        self.entropy = entropy
        if entropy is not None:
            self.loss_weights['entropy'] = entropy.weight
        if contrastive is not None and not by_gradient:
            raise ConfigError(
                f'a contrastive loss moves codes by gradients, and {type(update).__name__} moves them without gradients',
                "Leave contrastive out, or use an update in addition to gradients, e.g. 'CVQUpdate'.",
            )
        self.contrastive = contrastive
        if contrastive is not None:
            self.loss_weights['contrastive'] = contrastive.weight
        if update is not None:
            update.bind(self.codebook.weight, self.metric)

    @property
    def bits(self) -> float:
        return math.log2(self.codebook_size)

    def reset_parameters(self) -> None:
        """New random codes, and the update in its initial state; also called after a move off the meta device."""
        self.codebook.reset_parameters()
        if self.codebook_update is not None:
            self.codebook_update.reset(self.codebook.weight.detach())

    def lookup(self, tokens: Tensor) -> Tensor:
        codes: Tensor = self.codebook(tokens)
        return F.normalize(codes, dim=-1) if self.normalize else codes

    def forward(self, features: Tensor) -> Quantized:
        with no_autocast(features.device):
            x = features.float()  # (..., C)
            if self.normalize:
                x = unit_length(x)
            rows = x.detach().reshape(-1, self.embedding_dim)  # (N, C)
            tokens = nearest_code(rows, self.codebook.weight, self.metric)  # (N,)
            contrastive = self._contrastive_of(rows)  # before an update in forward: with the codes that were searched
            if self.training and self.codebook_update is not None:
                images = features.shape[0] if features.ndim > 1 else 1
                self.codebook_update.observe(rows, tokens, self.codebook.weight, images)
                if self.updates_in_forward:
                    self.codebook_update.update(self.codebook.weight, None)
            tokens = tokens.view(x.shape[:-1])
            codes = self.lookup(tokens)
            losses = {}
            if 'codebook' in self.loss_weights:
                losses['codebook'] = F.mse_loss(codes, x.detach())
            losses['commitment'] = F.mse_loss(x, codes.detach())
            if self.entropy is not None and self.training:
                losses['entropy'] = self._entropy_of(self.entropy, x.reshape(-1, self.embedding_dim))
            if contrastive is not None:
                losses['contrastive'] = contrastive
            return Quantized(pass_gradient(x, codes, self.gradient), tokens, losses)

    def _contrastive_of(self, rows: Tensor) -> Tensor | None:
        if self.contrastive is None or not self.training:
            return None
        table = self.codebook.weight
        # an update in forward overwrites the codebook, whose old values backward needs
        return self.contrastive.of(rows, table.clone() if self.updates_in_forward else table, self.metric)

    def _entropy_of(self, entropy: EntropyLoss, rows: Tensor) -> Tensor:
        """The entropy loss of rows (N, C), by the distance of the code search."""
        table = self.codebook.weight
        if self.metric == 'cosine':
            table = F.normalize(table, dim=-1)
        if self.metric == 'cosine' and not self.normalize:
            rows = unit_length(rows)
        return entropy.of_distances(rows, table)

    def update(self, ok: Tensor | None = None) -> None:
        if self.codebook_update is not None and not self.updates_in_forward:
            self.codebook_update.update(self.codebook.weight, ok)

    def extra_repr(self) -> str:
        return f'metric={self.metric}, normalize={self.normalize}, loss_weights={self.loss_weights}'
