"""Product quantization: groups of channels, each with its own quantizer."""

from __future__ import annotations

import torch
from torch import Tensor

from vq.core.errors import ConfigError
from vq.core.records import Quantized
from vq.interfaces import Quantizer
from vq.nn.precision import no_autocast
from vq.quantizers.composite import Composite
from vq.registries import VQQuantizerRegistry


@VQQuantizerRegistry.register_()
class GroupedQuantizer(Composite):
    """x = [x_1, ..., x_g],  z = [Q_1(x_1), ..., Q_g(x_g)];  tokens (..., g): K^g codes from g tables of K.

    (Jegou et al. 2011, product quantization.) A group is a run of consecutive channels. With residual quantizers as parts
    this is grouped residual quantization, and the tokens of a group are adjacent.

    - ``quantizer``: one quantizer of ``embedding_dim / groups`` channels, copied for each of the ``groups`` with codes of
      its own, or used by all of them if ``shared``; or a list of quantizers, whose widths can differ.
    """

    def __init__(self, quantizer: Quantizer | list[Quantizer], groups: int | None = None, shared: bool = False) -> None:
        super().__init__(quantizer, groups, shared, 'groups')
        self.channels = [part.embedding_dim for part in self.used()]
        self.embedding_dim = sum(self.channels)

    def lookup(self, tokens: Tensor) -> Tensor:
        if tokens.shape[-1] != sum(self.widths):
            raise ConfigError(
                f'tokens have the shape {tuple(tokens.shape)}, and the groups have {self.widths} tokens',
                'The last axis must have the tokens of all groups.',
            )
        return torch.cat([part.lookup(piece) for part, piece in zip(self.used(), self.split(tokens), strict=True)], dim=-1)

    def forward(self, features: Tensor) -> Quantized:
        with no_autocast(features.device):
            groups = torch.split(features.float(), self.channels, dim=-1)
            found = [part(group) for part, group in zip(self.used(), groups, strict=True)]
            return self.join(found, torch.cat([quantized.z for quantized in found], dim=-1))
