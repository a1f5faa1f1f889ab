"""One geometry for all fields of a sample: steps that crop, resize and mirror.

Images and masks go through the steps. Together, the steps are an affine map of each axis, x -> scale * x + offset, by which
boxes and points move: an image of width W covers [0, W], so its mirror is x -> W - x.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Self, TypeVar

import numpy as np

from vq.core.errors import ConfigError, UserError
from vq.data import pixels
from vq.data.decode import PIXEL_LIMIT, BadImage
from vq.data.fields import all_fields, check_rows, refuse_unknown, rows_in
from vq.data.pixels import Box
from vq.interfaces import Field, Sample

Movable = TypeVar('Movable', Sample, np.ndarray)  # a sample, or an image (H, W, 3) alone
Axis = tuple[float, float]  # scale, offset

IDENTITY: Axis = (1.0, 0.0)


def short_side_size(height: int, width: int, size: int) -> tuple[int, int]:
    """(height, width) after resizing the short side to ``size``; the long side is rounded down."""
    if height <= width:
        return size, int(size * width / height)
    return int(size * height / width), size


@dataclasses.dataclass(frozen=True)
class Step:
    """One step on arrays: ``image`` on pixels, ``mask`` on labels."""

    image: Callable[[np.ndarray], np.ndarray]
    mask: Callable[[np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Geometry:
    """Steps from an image of the size ``source`` to one of ``size``, both (height, width). Every method returns a new one."""

    source: tuple[int, int]
    size: tuple[int, int]
    steps: tuple[Step, ...] = ()
    x: Axis = IDENTITY
    y: Axis = IDENTITY

    @classmethod
    def of(cls, sample: Sample | np.ndarray) -> Self:
        """The geometry that changes nothing."""
        height, width = sample.size if isinstance(sample, Sample) else sample.shape[:2]
        return cls((height, width), (height, width))

    def crop(self, box: Box) -> Self:
        """``box``: top, left, height, width, inside the image."""
        (top, left, height, width), (whole_height, whole_width) = box, self.size
        if min(top, left) < 0 or min(height, width) < 1 or top + height > whole_height or left + width > whole_width:
            raise UserError(
                f'a crop of {width} x {height} pixels at ({left}, {top}) is not inside one of {whole_width} x {whole_height}',
                'Correct the transform.',
            )

        def cut(array: np.ndarray) -> np.ndarray:
            return pixels.crop(array, box)

        return self._then(Step(cut, cut), (height, width), (1.0, -left), (1.0, -top))

    def resize(self, height: int, width: int) -> Self:
        if self.size == (height, width):
            return self
        step = Step(lambda image: pixels.resize(image, height, width), lambda mask: pixels.resize_labels(mask, height, width))
        return self._then(step, (height, width), (width / self.size[1], 0.0), (height / self.size[0], 0.0))

    def resize_short_side(self, size: int) -> Self:
        height, width = short_side_size(*self.size, size)
        if height * width > PIXEL_LIMIT:  # a strip one pixel high is a small file, and gigabytes after resizing
            raise BadImage('', f'is {self.size[1]} x {self.size[0]}, too long and narrow for a short side of {size}')
        return self.resize(height, width)

    def mirror(self) -> Self:
        """Left becomes right."""
        return self._then(Step(pixels.mirror, pixels.mirror), self.size, (-1.0, self.size[1]), IDENTITY)

    def _then(self, step: Step, size: tuple[int, int], x: Axis, y: Axis) -> Self:
        before = zip((self.x, self.y), (x, y), strict=True)
        joined = [(scale * inner, scale * offset + outer) for (inner, offset), (scale, outer) in before]
        return dataclasses.replace(self, size=size, steps=(*self.steps, step), x=joined[0], y=joined[1])

    def move(self, sample: Movable, min_visibility: float = 0.0) -> Movable:
        """The sample after the steps; or the image, where an image alone is given.

        Boxes are clipped to the image. A box without area in it, or with less than ``min_visibility`` of its area, is dropped,
        and so are its rows in fields with ``rows_of``. Points are all kept; ``NAME_inside`` says which are in the image.
        """
        if isinstance(sample, np.ndarray):
            return self.image(sample)
        fields, name_of_sample = all_fields(sample.fields), str(sample.get('id', ''))
        refuse_unknown(sample, fields, name_of_sample)
        moving = {name: field for name, field in fields.items() if field.moves is not None and sample.get(name) is not None}
        moved: dict[str, Any] = {}
        for name, field in moving.items():
            if field.moves in ('image', 'mask'):
                moved[name] = self._array(name, field, sample)
            elif field.moves == 'boxes':
                boxes = rows_in(name, field, sample[name], name_of_sample)
                moved[name], kept = self.boxes(boxes, min_visibility)
                moved |= _rows(sample, fields, name, len(boxes), kept)
            elif field.moves == 'points':
                moved[name], moved[f'{name}_inside'] = self.points(rows_in(name, field, sample[name], name_of_sample))
            else:
                raise UserError(
                    f'{name} of the sample {name_of_sample} cannot be cropped, resized or mirrored',
                    'Leave out the transform: they were made of another image than the one it would make.',
                )
        return sample.but(**moved)

    def image(self, image: np.ndarray) -> np.ndarray:
        for step in self.steps:
            image = step.image(image)
        return image

    def mask(self, mask: np.ndarray) -> np.ndarray:
        """(H, W, ...): each pixel takes the label of the source at its centre."""
        for step in self.steps:
            mask = step.mask(mask)
        return mask

    def boxes(self, boxes: np.ndarray, min_visibility: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
        """(N, 4) -> the boxes that are kept, clipped, and the indices of these."""
        if not 0 <= min_visibility <= 1:
            raise ConfigError(f'min_visibility is {min_visibility}', 'It is a fraction of the area of a box, from 0 to 1.')
        corners = self._places(boxes.reshape(-1, 2, 2))
        corners = np.stack([corners.min(1), corners.max(1)], 1)  # a mirror exchanges left and right
        clipped = corners.clip(0, [self.size[1], self.size[0]])
        whole, left = ((ends[:, 1] - ends[:, 0]).prod(1) for ends in (corners, clipped))
        kept = np.flatnonzero((left > 0) & (left >= min_visibility * whole))
        return clipped[kept].reshape(-1, 4).astype(boxes.dtype), kept

    def points(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(N, 2) -> the points, also those outside, and whether they are inside, (N,) bool."""
        moved = self._places(points).astype(points.dtype)  # before the comparison: rounding can reach the edge
        inside: np.ndarray = np.all((moved >= 0) & (moved < [self.size[1], self.size[0]]), axis=1)
        return moved, inside

    def _places(self, places: np.ndarray) -> np.ndarray:
        """(..., 2) x, y, in double precision."""
        scales, offsets = zip(self.x, self.y, strict=True)
        return places.astype(np.float64) * scales + offsets

    def _array(self, name: str, field: Field, sample: Sample) -> np.ndarray:
        array = np.asarray(sample[name])
        if array.shape[:2] != self.source:
            raise UserError(
                f'{name} of {sample.get("id", "")} has the shape {array.shape}, and its image {self.source}',
                'Give both with the same height and width.',
            )
        return self.image(array) if field.moves == 'image' else self.mask(array)


def _rows(sample: Sample, fields: Mapping[str, Field], owner: str, count: int, kept: np.ndarray) -> dict[str, np.ndarray]:
    """The kept rows of the fields with the rows of ``owner``."""
    found = {}
    for name, field in fields.items():
        if field.rows_of == owner and sample.get(name) is not None:
            rows = rows_in(name, field, sample[name], str(sample.get('id', '')))
            check_rows(name, len(rows), owner, count, str(sample.get('id', '')))
            found[name] = rows[kept]
    return found
