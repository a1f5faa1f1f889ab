"""The image patches of a code: cells of the token grid with that code, cropped from the images.

Cell (i, j) of tokens (h, w) of an image (S, S) has the pixels i * S/h to (i + 1) * S/h, j * S/w to (j + 1) * S/w. The image
must be the tokenizer's input, after the transform; otherwise patches do not correspond to their codes.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from vq.core.errors import UserError
from vq.core.random import python_stream
from vq.io.shards import ShardSet

Pixels = npt.NDArray[np.uint8]
Counts = npt.NDArray[np.int64]
Place = tuple[int, int, int]  # row of the shards, i, j

BEYOND, LINE = (150, 165, 190), (220, 40, 40)  # colours that are unlikely in images


@dataclasses.dataclass(frozen=True)
class TokenView:
    """One variant and one codebook of a set of token shards: (rows, h, w)."""

    shards: ShardSet
    variant: int
    codebook: int | None  # of tokens (h, w, n); None for tokens (h, w)
    codes: int  # number of codes of this codebook

    @property
    def grid(self) -> tuple[int, int]:
        height, width = self.shards.manifest.producer['token_shape'][:2]
        return int(height), int(width)

    def pieces(self) -> Iterator[tuple[int, Counts]]:
        """For each shard: the number of its first row, and its tokens (n, h, w)."""
        starts, column = self.shards.starts, self.shards.column('tokens')
        for start, stop in itertools.pairwise(starts):
            if stop > start:
                tokens = column[start:stop][:, self.variant]
                yield start, (tokens if self.codebook is None else tokens[..., self.codebook]).astype(np.int64)

    def count(self) -> Counts:
        """The number of tokens of each code, (codes,)."""
        counts = np.zeros(self.codes, np.int64)
        for _, tokens in self.pieces():
            counts += np.bincount(tokens.ravel(), minlength=self.codes)
        return counts


def choose_codes(counts: Counts, number: int) -> tuple[list[int], list[int]]:
    """The codes with the most tokens, and the used codes with the fewest. Ties go to the lower code; no code is in both."""
    used = np.flatnonzero(counts)
    falling = used[np.argsort(-counts[used], kind='stable')]
    most = falling[:number].tolist()
    rest = np.sort(falling[number:])
    return most, rest[np.argsort(counts[rest], kind='stable')][:number].tolist()


def choose_places(tokens: TokenView, counts: Counts, codes: Sequence[int], number: int, seed: int) -> dict[int, list[Place]]:
    """For each code ``number`` of its places, sampled uniformly without replacement from ``seed``."""
    wanted = {code: _draw(int(counts[code]), number, seed, code) for code in codes}
    slot = np.full(tokens.codes, -1, np.int64)
    slot[list(codes)] = np.arange(len(codes))
    seen, found = dict.fromkeys(codes, 0), {code: list[Place]() for code in codes}
    for start, piece in tokens.pieces():
        cells = np.flatnonzero(slot[piece] >= 0)
        slots = slot[piece.ravel()[cells]]
        order = np.argsort(slots, kind='stable')
        edges = np.searchsorted(slots[order], np.arange(len(codes) + 1))
        for index, code in enumerate(codes):
            here = cells[order[edges[index] : edges[index + 1]]]
            chosen = [ordinal - seen[code] for ordinal in wanted[code] if 0 <= ordinal - seen[code] < len(here)]
            for cell in here[chosen]:
                row, i, j = (int(number) for number in np.unravel_index(cell, piece.shape))
                found[code].append((start + row, i, j))
            seen[code] += len(here)
    return found


def _draw(count: int, number: int, seed: int, code: int) -> list[int]:
    """``number`` of 0 to ``count - 1``, sorted, by Floyd's sampling: one random number for each."""
    stream, drawn = python_stream('patches', seed, code), set[int]()
    for last in range(max(count - number, 0), count):
        other = int(stream.random() * (last + 1))
        drawn.add(last if other in drawn else other)
    return sorted(drawn)


def cell_size(image: Pixels, grid: tuple[int, int]) -> tuple[int, int]:
    """Height and width of a cell in pixels."""
    height, width = image.shape[:2]
    if height % grid[0] or width % grid[1]:
        raise UserError(
            f'images of {width} x {height} do not divide into {grid[1]} x {grid[0]} cells',
            'Give the config and the image size with which the tokens were written.',
        )
    return height // grid[0], width // grid[1]


def cut(image: Pixels, place: tuple[int, int], cell: tuple[int, int], context: int = 0) -> Pixels:
    """Image (H, W, 3) -> the cell with ``context`` pixels around it, blue-grey outside the image, and a red frame."""
    top, left = place[0] * cell[0], place[1] * cell[1]
    if not context:
        return image[top : top + cell[0], left : left + cell[1]]
    height, width = image.shape[:2]
    padded = np.empty((height + 2 * context, width + 2 * context, 3), np.uint8)
    padded[:] = BEYOND
    padded[context : context + height, context : context + width] = image
    patch = padded[top : top + cell[0] + 2 * context, left : left + cell[1] + 2 * context].copy()
    low, high, right = context - 1, context + cell[0], context + cell[1]  # the line is outside of the cell
    patch[[low, high], low : right + 1] = LINE
    patch[low : high + 1, [low, right]] = LINE
    return patch


def cut_all(
    places: dict[int, list[Place]], read: Callable[[int], Pixels], grid: tuple[int, int], context: int
) -> dict[int, Pixels]:
    """Code -> its patches (n, h, w, 3). ``read`` returns the image of a row; it is called once per row."""
    by_row: dict[int, list[tuple[int, int, int, int]]] = {}
    for code, found in places.items():
        for number, (row, i, j) in enumerate(found):
            by_row.setdefault(row, []).append((code, number, i, j))
    patches: dict[int, dict[int, Pixels]] = {code: {} for code in places}
    for row in sorted(by_row):
        image = read(row)
        cell = cell_size(image, grid)
        for code, number, i, j in by_row[row]:
            patches[code][number] = cut(image, (i, j), cell, context)
    return {code: np.stack([found[number] for number in range(len(found))]) for code, found in patches.items()}
