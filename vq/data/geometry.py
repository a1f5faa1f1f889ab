"""One geometry for all fields of a sample: steps that crop, resize and mirror.

Images and masks go through the steps. Boxes and points move by the affine map of each axis, x -> scale * x + offset: an image
of width W covers [0, W], so its mirror is x -> W - x.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np

from vq.core.errors import ConfigError, UserError
from vq.data import pixels
from vq.data.decode import PIXEL_LIMIT, BadImage
from vq.data.fields import NOTES, all_fields, check_rows, refuse_unknown, rows_in
from vq.data.pixels import Box
from vq.interfaces import Field, Sample

Movable = TypeVar('Movable', Sample, np.ndarray)  # a sample, or an image (H, W, 3) alone
Axis = tuple[float, float]  # scale, offset
Size = tuple[int, int]  # height, width


def covering_size(height: int, width: int, rows: int, columns: int) -> tuple[int, int]:
    """(height, width) after resizing to the smallest size that covers rows x columns; the longer side is rounded down.

    For squares the short side becomes that of the square.
    """
    if height * columns <= width * rows:
        return rows, max(columns, int(rows * width / height))
    return max(rows, int(columns * height / width)), columns


class Crop(NamedTuple):
    box: Box

    def axes(self) -> tuple[Axis, Axis]:
        return (1.0, -self.box[1]), (1.0, -self.box[0])


class Resize(NamedTuple):
    before: Size
    after: Size

    def axes(self) -> tuple[Axis, Axis]:
        return (self.after[1] / self.before[1], 0.0), (self.after[0] / self.before[0], 0.0)


class Mirror(NamedTuple):
    width: int

    def axes(self) -> tuple[Axis, Axis]:
        return (-1.0, self.width), (1.0, 0.0)


class Geometry(NamedTuple):
    """Steps from an image of the size ``source`` to one of ``size``, both (height, width). Every method returns a new one."""

    source: Size
    size: Size
    steps: tuple[Crop | Resize | Mirror, ...] = ()

    @classmethod
    def of(cls, sample: Sample | np.ndarray) -> Geometry:
        """The geometry that changes nothing."""
        size = sample.shape[:2] if isinstance(sample, np.ndarray) else sample.size
        return Geometry(size, size)

    def crop(self, box: Box) -> Geometry:
        """``box``: top, left, height, width, inside the image."""
        (top, left, height, width), (whole_height, whole_width) = box, self.size
        if (height, width) == self.size and top == left == 0:
            return self
        if top < 0 or left < 0 or height < 1 or width < 1 or top + height > whole_height or left + width > whole_width:
            raise UserError(
                f'a crop of {width} x {height} pixels at ({left}, {top}) is not inside one of {whole_width} x {whole_height}',
                'Correct the transform.',
            )
        return Geometry(self.source, (height, width), (*self.steps, Crop(box)))

    def resize(self, height: int, width: int) -> Geometry:
        after = height, width
        return self if self.size == after else Geometry(self.source, after, (*self.steps, Resize(self.size, after)))

    def cover(self, rows: int, columns: int) -> Geometry:
        """Resize until the image covers rows x columns."""
        height, width = covering_size(*self.size, rows, columns)
        if height * width > PIXEL_LIMIT:  # a strip one pixel high is a small file, and gigabytes after resizing
            raise BadImage('', f'is {self.size[1]} x {self.size[0]}, too long and narrow for {rows} x {columns}')
        return self.resize(height, width)

    def mirror(self) -> Geometry:
        """Left becomes right."""
        return Geometry(self.source, self.size, (*self.steps, Mirror(self.size[1])))

    def move(self, sample: Movable, min_visibility: float = 0.0) -> Movable:
        """The sample after the steps; or the image, where an image alone is given.

        Boxes are clipped to the image. A box without area in it, or with less than ``min_visibility`` of its area, is dropped,
        and so are its rows in fields with ``rows_of``. Points are all kept; ``NAME_inside`` says which are in the image.
        """
        if isinstance(sample, np.ndarray):
            return self.image(sample)
        fields, name_of_sample = all_fields(sample.fields), str(sample.get('id', ''))
        moved: dict[str, Any] = {}
        for name, value in sample.items():
            if name in NOTES or value is None:
                continue
            field = fields.get(name) or refuse_unknown(name, fields, name_of_sample)
            if field.moves == 'image':
                moved[name] = self.image(self._checked(name, value, name_of_sample))
            elif field.moves == 'mask':
                moved[name] = self.mask(self._checked(name, value, name_of_sample), field.mirrored)
            elif field.moves == 'boxes':
                boxes = rows_in(name, field, value, name_of_sample)
                moved[name], kept = self.boxes(boxes, min_visibility)
                moved |= _rows(sample, fields, name, len(boxes), kept)
            elif field.moves == 'points':
                moved[name], moved[f'{name}_inside'] = self.points(rows_in(name, field, value, name_of_sample))
            elif field.moves == 'cannot':
                raise UserError(
                    f'{name} of the sample {name_of_sample} cannot be cropped, resized or mirrored',
                    'Leave out the transform: they were made of another image than the one it would make.',
                )
        return sample.but(**moved)

    def image(self, image: np.ndarray) -> np.ndarray:
        return self._pixels(image, pixels.resize)

    def mask(self, mask: np.ndarray, mirrored: Sequence[tuple[int, int]] = ()) -> np.ndarray:
        """(H, W, ...): each pixel takes the label of the source at its centre. A mirror exchanges the pairs ``mirrored``."""
        moved = self._pixels(mask, pixels.resize_labels)
        return pixels.exchange(moved, mirrored) if mirrored and self.is_mirrored else moved

    @property
    def is_mirrored(self) -> bool:
        """Whether left and right of the source are exchanged: after an odd number of mirrors."""
        return sum(isinstance(step, Mirror) for step in self.steps) % 2 == 1

    def _pixels(self, array: np.ndarray, resize: Callable[[np.ndarray, int, int], np.ndarray]) -> np.ndarray:
        for step in self.steps:
            if isinstance(step, Crop):
                array = pixels.crop(array, step.box)
            elif isinstance(step, Resize):
                array = resize(array, *step.after)
            else:
                array = pixels.mirror(array)
        return array

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
        """(..., 2) x, y after the steps, in double precision."""
        moved = places.astype(np.float64)
        for step in self.steps:
            scales, offsets = zip(*step.axes(), strict=True)
            moved = moved * scales + offsets
        return moved

    def _checked(self, name: str, value: Any, sample: str) -> np.ndarray:
        """The image or mask as an array, if it has the size that the geometry begins with."""
        array = np.asarray(value)
        if array.shape[:2] != self.source:
            raise UserError(
                f'{name} of {sample} has the shape {array.shape}, and its image {self.source}',
                'Give both with the same height and width.',
            )
        return array


def _rows(sample: Sample, fields: Mapping[str, Field], owner: str, count: int, kept: np.ndarray) -> dict[str, np.ndarray]:
    """The kept rows of the fields with the rows of ``owner``."""
    found = {}
    for name, field in fields.items():
        if field.rows_of == owner and sample.get(name) is not None:
            rows = rows_in(name, field, sample[name], str(sample.get('id', '')))
            check_rows(name, len(rows), owner, count, str(sample.get('id', '')))
            found[name] = rows[kept]
    return found
