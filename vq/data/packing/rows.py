"""A sample of a dataset -> a row of packed images: resized, as pixels or as the bytes of a JPEG file."""

from __future__ import annotations

import collections
import dataclasses
import io
from typing import Any, Literal, get_args

import numpy as np
from PIL import Image

from vq.core.errors import UserError
from vq.core.random import python_stream
from vq.data.geometry import Geometry
from vq.interfaces import Dataset, Sample
from vq.io.packed import FILE, PIXELS, Row, pack_fields

Mode = Literal['raw', 'jpg', 'proportion']

JPEG = b'\xff\xd8\xff'  # the first bytes of a file
STORED = ('id', 'image', 'category')  # fields of a sample with columns of their own
NOT_STORED = ('path',)  # where the image was
KEPT, COMPRESSED, RAW = 'JPEG bytes as they were', 'compressed as JPEG', 'pixels'  # what was done with an image


def capped(height: int, width: int, limit: int | None) -> tuple[int, int]:
    """The size whose longer side is at most ``limit``, in the same shape, the shorter side rounded down; never enlarged."""
    longer = max(height, width)
    if limit is None or longer <= limit:
        return height, width
    return max(1, height * limit // longer), max(1, width * limit // longer)


@dataclasses.dataclass(frozen=True)
class Packing:
    """How images are stored.

    - ``mode``: 'raw': pixels; 'jpg': JPEG; 'proportion': JPEG with the probability ``compress_probability``, else pixels.
    - ``max_resolution``: larger images are resized (antialiased bicubic) until their longer side has this many pixels.
    - ``quality`` of JPEG. A JPEG file that needs no resizing keeps its bytes, whatever its quality.
    """

    mode: Mode = 'raw'
    max_resolution: int | None = None
    quality: int = 90
    compress_probability: float = 0.5

    def __post_init__(self) -> None:
        wrong = ''
        if self.mode not in get_args(Mode):
            wrong = f"mode is '{self.mode}', and there are {', '.join(get_args(Mode))}"
        elif self.max_resolution is not None and self.max_resolution < 1:
            wrong = f'max_resolution is {self.max_resolution}, and it is a number of pixels'
        elif not 1 <= self.quality <= 100:
            wrong = f'quality is {self.quality}, and it is a number from 1 to 100'
        elif not 0 <= self.compress_probability <= 1:
            wrong = f'compress_probability is {self.compress_probability:g}, and it is a number from 0 to 1'
        if wrong:
            raise UserError(f'images cannot be packed like this: {wrong}', 'Correct it: vq data pack --help.')

    def describe(self) -> dict[str, Any]:
        """For the manifest: settings that change the stored bytes."""
        found: dict[str, Any] = {'mode': self.mode, 'max_resolution': self.max_resolution}
        found |= {} if self.mode == 'raw' else {'quality': self.quality}
        return found | ({'compress_probability': self.compress_probability} if self.mode == 'proportion' else {})

    def row(self, dataset: Dataset, index: int, done: collections.Counter[str]) -> Row:
        """One row. ``done`` counts what was done with images. Raises ``BadImage``."""
        sample = dataset.original(index)
        height, width = sample['image'].shape[:2]
        size = capped(height, width, self.max_resolution)
        data = dataset.encoded(index) if size == (height, width) and self._is_jpeg(sample) else None
        data = data if data is not None and data.startswith(JPEG) else None
        if size != (height, width):
            sample = Geometry.of(sample).resize(*size).move(sample)
        what, form = (KEPT, FILE) if data else (COMPRESSED, FILE) if self._is_jpeg(sample) else (RAW, PIXELS)
        if not data:
            pixels = np.ascontiguousarray(sample['image'])
            data = pixels.tobytes() if form == PIXELS else _compressed(pixels, self.quality)
        done[what] += 1
        category = sample.get('category')
        others = {name: value for name, value in sample.items() if name not in (*STORED, *NOT_STORED) and value is not None}
        return Row(sample['id'], data, form, size, -1 if category is None else category, pack_fields(others, sample['id']))

    def _is_jpeg(self, sample: Sample) -> bool:
        if self.mode == 'proportion':
            return python_stream('pack', sample['id']).random() < self.compress_probability
        return self.mode == 'jpg'


def _compressed(pixels: np.ndarray, quality: int) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, 'JPEG', quality=quality)
    return stream.getvalue()
