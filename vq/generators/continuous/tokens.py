"""Latents as sequences of continuous tokens."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from vq.core.errors import ConfigError
from vq.core.specs import in_words
from vq.denoisers.dit import vector_of
from vq.interfaces import Conditioned


class LatentTokens:
    """Latents (B, C, *cells) <-> tokens (B, L, C p^2): patches of p x p cells, row by row, in each channel by channel."""

    def __init__(self, channels: int, cells: tuple[int, ...], patch: int) -> None:
        self.cells, self.patch, self.channels = tuple(cells), patch, channels
        if patch < 1 or (patch > 1 and len(cells) != 2) or any(side < 1 or side % patch for side in cells):
            raise ConfigError(
                f'{in_words(self.cells)} cells do not divide into patches of {patch}',
                'Choose a patch that divides height and width; 1 for other shapes.',
            )
        self.grid = tuple(side // patch for side in cells)
        self.length, self.width = math.prod(self.grid), channels * patch**2

    def tokens(self, latents: Tensor) -> Tensor:
        rows = F.pixel_unshuffle(latents, self.patch) if self.patch > 1 else latents
        return rows.flatten(2).transpose(1, 2)

    def latents(self, tokens: Tensor) -> Tensor:
        rows = tokens.transpose(1, 2).reshape(len(tokens), self.width, *self.grid)
        return F.pixel_shuffle(rows, self.patch) if self.patch > 1 else rows

    def kept(self, keep: Tensor) -> Tensor:
        """bool (*cells) -> (L,): tokens of which every cell is kept."""
        rows: Tensor = F.pixel_unshuffle(keep[None, None].float(), self.patch) if self.patch > 1 else keep[None, None].float()
        return rows.amin(1).flatten() > 0


def token_channels(settings: Mapping[str, Any]) -> int | None:
    """The numbers of a token, from the settings of a generator; None while its latents are unknown."""
    channels = settings.get('channels')
    return None if channels is None else channels * int(settings.get('patch', 1)) ** 2


def condition_vector(condition: Conditioned | None, rows: Tensor, dim: int) -> Tensor:
    """(B, dim); zeros without a conditioner."""
    vector = vector_of(condition, dim)
    return rows.new_zeros(len(rows), dim) if vector is None else vector
