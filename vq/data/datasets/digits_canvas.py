"""Handwritten digits at random places of a dark canvas, with their boxes and a map of labels: layouts without a download."""

from __future__ import annotations

import functools
import random
import zlib
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
from PIL import Image

from vq.core.errors import ConfigError
from vq.core.random import python_stream
from vq.core.specs import ImageSize, size_of
from vq.data.datasets.base import ImageDataset, Transform
from vq.data.datasets.digits import SIZES, load_digits, split_indices
from vq.registries import VQDatasetRegistry

COUNTS = {'train': 20_000, 'validation': 500, 'test': 500}
INK = 64  # a pixel at least as bright is of a digit
NOTHING = 255  # the label of all others
TRIES = 20  # places that are tried for a digit before it is left out
WORDS = ('zero', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine')
GAP = 1  # pixels between two boxes, at least


class Canvas(NamedTuple):
    image: np.ndarray  # (H, W) uint8
    mask: np.ndarray  # (H, W) int64
    boxes: np.ndarray  # (N, 4) float32: x1, y1, x2, y2
    categories: np.ndarray  # (N,) int64


@functools.cache
def digits_of(split: str) -> tuple[tuple[np.ndarray, ...], tuple[int, ...]]:
    """The pictures of a split without their empty edges, and their classes."""
    images, categories = load_digits()
    chosen = split_indices(categories)[split]
    cut = []
    for picture in images[chosen]:
        rows, columns = (np.flatnonzero((picture > 0).any(axis)) for axis in (1, 0))
        cut.append(picture[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])
    return tuple(cut), tuple(categories[chosen].tolist())


def draw_canvas(stream: random.Random, split: str, size: tuple[int, ...], most: int, smallest: int, largest: int) -> Canvas:
    """1 to ``most`` digits, ``smallest`` to ``largest`` pixels high. Their boxes do not touch."""
    height, width = size
    pictures, classes = digits_of(split)
    image, mask = np.zeros(size, np.uint8), np.full(size, NOTHING, np.int64)
    boxes: list[tuple[int, int, int, int]] = []
    categories = []
    for _ in range(1 + int(stream.random() * most)):
        number = int(stream.random() * len(pictures))
        down = smallest + int(stream.random() * (largest - smallest + 1))
        picture = pictures[number]
        across = min(width, max(2, round(down * picture.shape[1] / picture.shape[0])))
        ink = np.asarray(Image.fromarray(picture).resize((across, down), Image.Resampling.BILINEAR))
        rows, columns = (np.flatnonzero((ink >= INK).any(axis)) for axis in (1, 0))
        ink = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]  # the box is that of the label, to the pixel
        place = _free(stream, ink.shape[0], ink.shape[1], height, width, boxes)
        if place is None:
            continue
        left, top, right, bottom = place
        image[top:bottom, left:right] = ink
        mask[top:bottom, left:right][ink >= INK] = classes[number]
        boxes.append(place)
        categories.append(classes[number])
    return Canvas(image, mask, np.array(boxes, np.float32).reshape(-1, 4), np.array(categories, np.int64))


def _free(
    stream: random.Random, down: int, across: int, height: int, width: int, boxes: list[tuple[int, int, int, int]]
) -> tuple[int, int, int, int] | None:
    """A place apart from ``boxes``; None if none is found."""
    for _ in range(TRIES):
        top, left = int(stream.random() * (height - down + 1)), int(stream.random() * (width - across + 1))
        box = left, top, left + across, top + down
        apart = (
            box[2] + GAP <= x1 or x2 + GAP <= box[0] or box[3] + GAP <= y1 or y2 + GAP <= box[1] for x1, y1, x2, y2 in boxes
        )
        if all(apart):
            return box
    return None


@VQDatasetRegistry.register_()
class DigitsCanvasDataset(ImageDataset):
    """1 to ``most`` of scikit-learn's digits on a canvas of ``image_size``, each ``smallest`` to ``largest`` pixels high.

    ``boxes`` and ``box_categories`` of each digit, and ``mask``, the class of each pixel of a digit and 255 elsewhere. A box
    is the smallest one around the pixels of its label, and boxes do not touch. Sample i is a function of ``seed``, the split,
    i and these settings alone. Digits of a split are those of ``DigitsDataset``: training and validation share no picture.
    ``count``: samples of the split; None: 20,000 to train, 500 to validate, 500 to test. ``text``: the names of the classes,
    such as 'three, seven', are the text.
    """

    def __init__(
        self,
        split: Literal['train', 'validation', 'test'] = 'train',
        image_size: ImageSize = 64,
        most: int = 4,
        smallest: int = 16,
        largest: int = 28,
        count: int | None = None,
        seed: int = 0,
        text: bool = False,
        transform: Transform = None,
    ) -> None:
        if split not in SIZES:
            raise ConfigError(f"the digits have no split '{split}'", f'Their splits are: {", ".join(SIZES)}.')
        size = size_of(image_size)
        if most < 1 or not 4 <= smallest <= largest <= min(size) or (count is not None and count < 1):
            raise ConfigError(
                f'most is {most}, smallest {smallest}, largest {largest} and count {count}, '
                f'on a canvas of {size[0]} x {size[1]}',
                'Give 1 digit and 1 sample or more, and heights from 4 pixels to those of the canvas.',
            )
        super().__init__('digits_canvas', split, transform)
        self.image_size, self.most, self.smallest, self.largest = size, most, smallest, largest
        self.count, self.seed, self.text = COUNTS[split] if count is None else count, seed, text
        self.label_names = tuple('0123456789')
        self._last: tuple[int, Canvas] | None = None

    def __len__(self) -> int:
        return self.count

    def id_of(self, index: int) -> str:
        return f'digits_canvas/{self.split}/{index:06d}'

    def canvas(self, index: int) -> Canvas:
        last = self._last  # the image and its boxes are asked for one after the other
        if last is not None and last[0] == index:
            return last[1]
        stream = python_stream('digits_canvas', self.seed, self.split, index)
        drawn = draw_canvas(stream, self.split, self.image_size, self.most, self.smallest, self.largest)
        self._last = index, drawn
        return drawn

    def read(self, index: int) -> np.ndarray:
        return np.repeat(self.canvas(index).image[:, :, None], 3, axis=2)

    def annotations_of(self, index: int) -> Mapping[str, Any]:
        canvas = self.canvas(index)
        found = {'boxes': canvas.boxes.copy(), 'box_categories': canvas.categories.copy(), 'mask': canvas.mask.copy()}
        return found | ({'text': ', '.join(WORDS[number] for number in canvas.categories)} if self.text else {})

    def fingerprint(self) -> str:
        """Ids do not depend on the settings, so these count."""
        settings = repr((self.image_size, self.most, self.smallest, self.largest, self.seed))
        return f'{self._digest[:8]}{zlib.crc32(settings.encode()):08x}'
