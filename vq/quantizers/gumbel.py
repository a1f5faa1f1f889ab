"""Gumbel-softmax quantization: codes are sampled from logits instead of searched, and every code gets gradients."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vq.core.errors import ConfigError
from vq.core.records import Quantized
from vq.interfaces import Quantizer
from vq.nn.precision import exact_matmul, no_autocast
from vq.quantizers.codebook import Codebook, Init
from vq.registries import VQQuantizerRegistry


def gumbel_noise(logits: Tensor) -> Tensor:
    """Independent draws from Gumbel(0, 1), one per logit: -log of an exponential draw."""
    return torch.empty_like(logits).exponential_().log_().neg_()


def relaxed_weights(logits: Tensor, noise: Tensor, temperature: float | Tensor) -> Tensor:
    """softmax((logits + noise) / temperature) over the codes, (..., K)."""
    return torch.softmax((logits + noise) / temperature, dim=-1)


def straight_through_codes(weights: Tensor, tokens: Tensor, codes: Tensor) -> Tensor:
    """Bitwise the chosen codes (..., C), with the gradient of the mix weights @ codes at the weights.

    weights (..., K), tokens (...), codes (K, C). weights - sg(weights) is exactly zero, and so is its product with codes.
    """
    return F.embedding(tokens, codes) + (weights - weights.detach()) @ codes.detach()


def kl_to_uniform(logits: Tensor) -> Tensor:
    """Mean over cells of sum_k q_k log(K q_k + 1e-10) with q = softmax(logits): the KL divergence of q from uniform."""
    q = torch.softmax(logits, dim=-1)  # (..., K)
    return (q * torch.log(q * logits.shape[-1] + 1e-10)).sum(-1).mean()


@VQQuantizerRegistry.register_()
class GumbelQuantizer(Quantizer):
    """w = softmax((l(x) + g) / t) with g ~ Gumbel(0, 1),  z = sum_k w_k c_k,  loss 'kl' = E_x sum_k q_k log(K q_k).

    (Jang et al. 2017, Maddison et al. 2017; the prior term as in DALL-E and taming's GumbelVQ.) l is a linear layer from
    features to one logit per code, q = softmax(l(x)). Training draws noise; with ``straight_through`` the value is the
    code of the largest weight, and the gradient is that of the mix. Evaluation draws no noise: z is the code of the largest
    logit, exactly as from ``lookup``. ``feature_dim`` is the width of features, by default that of codes.

    ``temperature`` and ``kl_weight`` are read in every forward and can be set between steps, for schedules. Forward reads
    the temperature from a tensor: torch.compile bakes Python floats into the graph and would recompile for every value.
    """

    temperature_tensor: Tensor  # ()

    def __init__(
        self,
        codebook_size: int,
        embedding_dim: int,
        temperature: float = 1.0,
        kl_weight: float = 5e-4,
        straight_through: bool = True,
        init: Init = 'normal',
        feature_dim: int | None = None,
    ) -> None:
        super().__init__()
        if not temperature > 0:
            raise ConfigError(f'temperature is {temperature}', 'Give a number above 0.')
        self.codebook_size = codebook_size
        self.embedding_dim = embedding_dim
        self.register_buffer('temperature_tensor', torch.empty(()), persistent=False)
        self.temperature = float(temperature)
        self.kl_weight = float(kl_weight)
        self.straight_through = straight_through
        self.codebook = Codebook(codebook_size, embedding_dim, init=init)
        self.logits = nn.Linear(embedding_dim if feature_dim is None else feature_dim, codebook_size)

    @property
    def temperature(self) -> float:
        return self._temperature

    @temperature.setter
    def temperature(self, value: float) -> None:
        self._temperature = value
        with torch.no_grad():
            self.temperature_tensor.fill_(value)

    @property
    def loss_weights(self) -> Mapping[str, float]:  # type: ignore[override]
        """Follows ``kl_weight``."""
        return {'kl': self.kl_weight}

    @property
    def feature_dim(self) -> int:
        return self.logits.in_features

    @property
    def bits(self) -> float:
        return math.log2(self.codebook_size)

    def reset_parameters(self) -> None:
        """New random codes and logits; also called after a move off the meta device."""
        self.temperature = self._temperature
        self.codebook.reset_parameters()
        self.logits.reset_parameters()

    def lookup(self, tokens: Tensor) -> Tensor:
        codes: Tensor = self.codebook(tokens)
        return codes

    def forward(self, features: Tensor) -> Quantized:
        with no_autocast(features.device), nullcontext() if torch.compiler.is_compiling() else exact_matmul():
            logits = self.logits(features.float())  # (..., K)
            losses = {'kl': kl_to_uniform(logits)}
            codes = self.codebook.weight  # (K, C)
            if not self.training:
                tokens = logits.argmax(-1)
                if not torch.is_grad_enabled():
                    return Quantized(self.lookup(tokens), tokens, losses)
                return Quantized(
                    straight_through_codes(torch.softmax(logits / self.temperature_tensor, dim=-1), tokens, codes),
                    tokens,
                    losses,
                )
            weights = relaxed_weights(logits, gumbel_noise(logits), self.temperature_tensor)
            tokens = weights.argmax(-1)
            z = straight_through_codes(weights, tokens, codes) if self.straight_through else weights @ codes
            return Quantized(z, tokens, losses)

    def extra_repr(self) -> str:
        return f'temperature={self.temperature}, kl_weight={self.kl_weight}, straight_through={self.straight_through}'
