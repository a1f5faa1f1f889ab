"""The table of codes."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vq.core.errors import ConfigError

Init = Literal['uniform', 'normal']


class Codebook(nn.Module):
    """K codes of C channels, fp32: a parameter if gradients train the codes, a buffer if an update rule moves them.

    ``uniform`` draws from U(-1/K, 1/K), ``normal`` from N(0, 1).
    """

    weight: Tensor  # (K, C)

    def __init__(self, codebook_size: int, embedding_dim: int, *, trainable: bool = True, init: Init = 'uniform') -> None:
        super().__init__()
        if codebook_size < 1 or embedding_dim < 1:
            raise ConfigError(
                f'a codebook has {codebook_size} codes of {embedding_dim} channels',
                'codebook_size and embedding_dim must be at least 1.',
            )
        self.init = init
        weight = torch.empty(codebook_size, embedding_dim, dtype=torch.float32)
        if trainable:
            self.weight = nn.Parameter(weight)
        else:
            self.register_buffer('weight', weight)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        with torch.no_grad():
            if self.init == 'normal':
                self.weight.normal_()
            else:
                self.weight.uniform_(-1 / len(self.weight), 1 / len(self.weight))

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens (...) -> codes (..., C)."""
        return F.embedding(tokens, self.weight)

    def extra_repr(self) -> str:
        kind = 'parameter' if isinstance(self.weight, nn.Parameter) else 'buffer'
        return f'{self.weight.shape[0]} codes of {self.weight.shape[1]} channels, {kind}'
