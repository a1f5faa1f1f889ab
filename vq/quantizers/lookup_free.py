"""Quantization by signs: the code of a feature is the sign of each of its channels. No codebook is learned."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from vq.core.errors import ConfigError
from vq.core.records import Quantized
from vq.interfaces import Quantizer
from vq.nn.precision import no_autocast
from vq.quantizers.checks import check_tokens, check_width
from vq.quantizers.entropy import EntropyLoss
from vq.quantizers.gradients import straight_through
from vq.registries import VQQuantizerRegistry

BitOrder = Literal['first_lowest', 'first_highest']


def reverse_bits(tokens: Tensor, bits: int) -> Tensor:
    """Convert tokens from one bit order to the other. The function is its own inverse."""
    shifts = torch.arange(bits, device=tokens.device)
    return ((tokens.unsqueeze(-1) >> shifts & 1) << (bits - 1 - shifts)).sum(-1)


class SignQuantizer(Quantizer):
    """Base of LFQ and BSQ: tokens, codes and losses of signs. Codes are +-``length`` in every channel."""

    length: float

    def __init__(
        self, bits: int, commitment_weight: float, entropy: EntropyLoss | None, entropy_group: int | None, bit_order: BitOrder
    ) -> None:
        super().__init__()
        if not 1 <= bits <= 62:
            raise ConfigError(f'{bits} bits a token', 'Tokens are 64-bit integers: 1 to 62 bits.')
        if bit_order not in ('first_lowest', 'first_highest'):
            raise ConfigError(f"bit_order is '{bit_order}'", "It is 'first_lowest' or 'first_highest'.")
        if entropy_group is not None and entropy_group < 1:
            raise ConfigError(f'entropy_group is {entropy_group}', 'It is the number of bits of a group, from 1 on.')
        if entropy is not None and entropy.target != 'soft':
            raise ConfigError(f"the entropy over signs does not support target '{entropy.target}'", "Give target='soft'.")
        if entropy is not None and max(bits if entropy.floor == 'clamp' else 0, min(bits, entropy_group or bits)) > 30:
            raise ConfigError(
                f'the entropy over 2^{bits} codes needs too much memory', "Give an entropy_group, and floor='add'."
            )
        self.embedding_dim = bits
        self.codebook_size = 2**bits
        self.bit_order = bit_order
        self.entropy = entropy
        self.entropy_group = entropy_group
        self.loss_weights = {'commitment': commitment_weight}
        if entropy is not None:
            self.loss_weights['entropy'] = entropy.weight

    @property
    def bits(self) -> float:
        return float(self.embedding_dim)

    def reset_parameters(self) -> None:
        """Signs have no parameters."""

    def prepared(self, features: Tensor) -> Tensor:
        """fp32 features (..., d) -> the values whose signs are taken."""
        raise NotImplementedError

    def _shifts(self, device: torch.device) -> Tensor:
        """(d,) the bit position of each channel in a token."""
        places = torch.arange(self.embedding_dim, device=device)
        return places if self.bit_order == 'first_lowest' else self.embedding_dim - 1 - places

    def lookup(self, tokens: Tensor) -> Tensor:
        check_tokens(tokens, self.codebook_size, type(self).__name__)
        return self._codes(tokens)

    def _codes(self, tokens: Tensor) -> Tensor:
        positive = tokens.unsqueeze(-1) >> self._shifts(tokens.device) & 1  # (..., d)
        return (2 * positive - 1).float() * self.length

    def forward(self, features: Tensor) -> Quantized:
        check_width(features, self.embedding_dim, type(self).__name__)
        with no_autocast(features.device):
            x = self.prepared(features.float())  # (..., d)
            tokens = ((x.detach() > 0).long() << self._shifts(x.device)).sum(-1)
            codes = self._codes(tokens)
            losses = {'commitment': F.mse_loss(x, codes)}
            if self.entropy is not None and self.training:
                losses['entropy'] = self.entropy.of_signs(x.reshape(-1, self.embedding_dim), self.length, self.entropy_group)
            return Quantized(straight_through(x, codes), tokens, losses)

    def extra_repr(self) -> str:
        return f"bits={self.embedding_dim}, bit_order='{self.bit_order}', loss_weights={self.loss_weights}"


@VQQuantizerRegistry.register_()
class LookupFreeQuantizer(SignQuantizer):
    """z = sign(x) in {-1, 1}^d, straight-through, losses 'commitment' mse(x, z) and 'entropy' (``EntropyLoss``).

    (Yu et al. 2023, MAGVIT-v2.) A zero counts as negative. The token has a bit per channel, 1 for positive: the first
    channel is the lowest bit with ``bit_order='first_lowest'`` (Open-MAGVIT2), the highest with 'first_highest'
    (vector-quantize-pytorch); ``reverse_bits`` converts between them. The entropy is computed in training only; without
    this loss most codes stay unused. It is exact without a table of codes, because p(z | x) is a product over channels.
    ``entropy_group`` bounds its cost beyond about 20 bits.
    """

    length = 1.0

    def __init__(
        self,
        bits: int,
        commitment_weight: float = 0.25,
        entropy: EntropyLoss | None = None,
        entropy_group: int | None = None,
        bit_order: BitOrder = 'first_lowest',
    ) -> None:
        super().__init__(bits, commitment_weight, entropy, entropy_group, bit_order)

    def prepared(self, features: Tensor) -> Tensor:
        return features


@VQQuantizerRegistry.register_()
class BinarySphericalQuantizer(SignQuantizer):
    """u = x / |x|,  z = sign(u) / sqrt(d), straight-through to u, losses 'commitment' mse(u, z) and 'entropy'.

    (Zhao et al. 2024, BSQ.) Features and codes lie on the unit sphere, so the quantization error is bounded. H(E p) is the
    sum over single bits with ``entropy_group=1``, as in the paper; the sum over groups of more bits, as in the authors' code;
    or exact with None, as in vector-quantize-pytorch. Bits and tokens are those of ``LookupFreeQuantizer``.
    """

    def __init__(
        self,
        bits: int,
        commitment_weight: float = 0.25,
        entropy: EntropyLoss | None = None,
        entropy_group: int | None = 1,
        bit_order: BitOrder = 'first_lowest',
    ) -> None:
        super().__init__(bits, commitment_weight, entropy, entropy_group, bit_order)
        self.length = bits**-0.5

    def prepared(self, features: Tensor) -> Tensor:
        return F.normalize(features, dim=-1)
