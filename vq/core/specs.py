"""What a codec makes of an image of a given size: the shape of its tokens, and of its latent. Works without torch."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal, NamedTuple

ImageSize = int | tuple[int, int]  # in configs: a number of pixels a side, or (height, width)
Size = tuple[int, ...]  # (height, width) of an image; (frames, height, width) of a video
Statistics = Literal['channel', 'element']  # what has a mean and a deviation of its own


@dataclasses.dataclass(frozen=True)
class TokenSpec:
    """The tokens of one image: one code of each codebook in every cell.

    ``cells``: of any rank, such as (h, w), (L,), or (frames, h, w). A quantizer that uses one codebook several times in a
    cell has an axis of cells for the uses.
    """

    cells: tuple[int, ...]
    codebooks: tuple[int, ...]  # size of each

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the tokens: the cells, and with several codebooks an axis for these."""
        return self.cells if len(self.codebooks) == 1 else (*self.cells, len(self.codebooks))

    @property
    def codebook_size(self) -> int:
        """The size of the largest codebook: tokens are below it."""
        return max(self.codebooks)

    @property
    def count(self) -> int:
        """The number of tokens."""
        return math.prod(self.shape)

    @property
    def bits(self) -> float:
        """Bits of one image: sum over all tokens of log2 of the size of the codebook."""
        return math.prod(self.cells) * math.fsum(math.log2(size) for size in self.codebooks)


@dataclasses.dataclass(frozen=True)
class LatentSpec:
    """The latent of one image: a vector in every cell.

    ``normalized``: what the codec has a mean and a deviation of, None if it has none. The values are buffers of the codec.
    """

    channels: int
    cells: tuple[int, ...]
    normalized: Statistics | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the latent: channels first."""
        return (self.channels, *self.cells)


class CodecSpec(NamedTuple):
    """The tokens and the latent of an image; None for what a codec does not have."""

    tokens: TokenSpec | None
    latent: LatentSpec | None


def size_of(image_size: int | tuple[int, ...]) -> Size:
    """The size of an image that a config describes: a number is that of a square."""
    return (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)


def plain_size(size: Size) -> int | tuple[int, ...]:
    """The reverse of ``size_of``: a number for squares."""
    return size[0] if len(size) == 2 and size[0] == size[1] else tuple(size)


def in_words(size: tuple[int, ...]) -> str:
    return ' x '.join(map(str, size))
