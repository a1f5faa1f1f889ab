"""Product quantization: groups of channels, each with a quantizer of its own."""

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

    (Jegou et al. 2011, product quantization.) Channels are dealt to the groups in order. With residual quantizers as
    parts this is grouped residual quantization, and the tokens of a group stand together.

    - ``quantizer``: one for all ``groups``, of ``embedding_dim / groups`` channels, copied with codes of its own or, if
      ``shared``, one codebook for all; or a list, whose widths may differ.
    """

    def __init__(self, quantizer: Quantizer | list[Quantizer], groups: int | None = None, shared: bool = False) -> None:
        super().__init__(quantizer, groups, shared, 'groups')
        self.channels = [part.embedding_dim for part in self.used()]
        self.embedding_dim = sum(self.channels)

    def lookup(self, tokens: Tensor) -> Tensor:
        if tokens.shape[-1] != sum(self.widths):
            raise ConfigError(
                f'tokens of the shape {tuple(tokens.shape)} are no groups of {self.widths} tokens',
                'The last axis counts the groups, and all of them are needed.',
            )
        return torch.cat([part.lookup(piece) for part, piece in zip(self.used(), self.split(tokens), strict=True)], dim=-1)

    def forward(self, features: Tensor) -> Quantized:
        with no_autocast(features.device):
            groups = torch.split(features.float(), self.channels, dim=-1)
            found = [part(group) for part, group in zip(self.used(), groups, strict=True)]
            return self.join(found, torch.cat([quantized.z for quantized in found], dim=-1))
