"""SimVQ: codes are the outputs of a trained linear map of frozen codes, so one step of the map moves all codes."""

from __future__ import annotations

import math
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vq.core.records import Quantized
from vq.interfaces import Quantizer
from vq.nn.precision import exact_matmul, no_autocast
from vq.quantizers.codebook import Codebook
from vq.quantizers.gradients import Gradient, check_gradient, pass_gradient
from vq.quantizers.search import nearest_code
from vq.registries import VQQuantizerRegistry


@VQQuantizerRegistry.register_()
class SimVectorQuantizer(Quantizer):
    """c_k = W f_k + b,  k = argmin_k |x - c_k|^2,  losses mse(c_k, sg(x)) and mse(sg(c_k), x); f is frozen, W and b learn.

    (Zhu et al. 2024.) f is drawn from N(0, 1/C') with C' = ``frozen_dim`` channels, by default ``embedding_dim``. f is a
    buffer in the state dict. ``bias=False`` leaves out b, as vector-quantize-pytorch does. ``gradient`` selects how z passes
    gradients to x: straight-through as in the paper, or the rotation trick.
    """

    def __init__(
        self,
        codebook_size: int,
        embedding_dim: int,
        frozen_dim: int | None = None,
        bias: bool = True,
        gradient: Gradient = 'straight_through',
        codebook_weight: float = 1.0,
        commitment_weight: float = 0.25,
    ) -> None:
        super().__init__()
        self.codebook_size = codebook_size
        self.embedding_dim = embedding_dim
        self.gradient: Gradient = check_gradient(gradient)
        self.loss_weights = {'codebook': codebook_weight, 'commitment': commitment_weight}
        self.frozen = Codebook(codebook_size, frozen_dim or embedding_dim, trainable=False, init='normal')
        self.projection = nn.Linear(frozen_dim or embedding_dim, embedding_dim, bias=bias)
        self._scale()

    @property
    def bits(self) -> float:
        return math.log2(self.codebook_size)

    def reset_parameters(self) -> None:
        """New frozen codes and a new map; also called after a move off the meta device."""
        self.frozen.reset_parameters()
        self.projection.reset_parameters()
        self._scale()

    @torch.no_grad()
    def _scale(self) -> None:
        self.frozen.weight.mul_(self.frozen.weight.shape[1] ** -0.5)

    def codes(self) -> Tensor:
        """All codes (K, C). Always computed in one product, so that forward and lookup get bitwise equal codes."""
        with nullcontext() if torch.compiler.is_compiling() else exact_matmul():
            codes: Tensor = self.projection(self.frozen.weight)
        return codes

    def lookup(self, tokens: Tensor) -> Tensor:
        with no_autocast(tokens.device):
            return F.embedding(tokens, self.codes())

    def forward(self, features: Tensor) -> Quantized:
        with no_autocast(features.device):
            x = features.float()  # (..., C)
            table = self.codes()
            tokens = nearest_code(x.detach().reshape(-1, self.embedding_dim), table).view(x.shape[:-1])
            codes = F.embedding(tokens, table)
            losses = {'codebook': F.mse_loss(codes, x.detach()), 'commitment': F.mse_loss(x, codes.detach())}
            return Quantized(pass_gradient(x, codes, self.gradient), tokens, losses)

    def extra_repr(self) -> str:
        return f"gradient='{self.gradient}', loss_weights={self.loss_weights}"
