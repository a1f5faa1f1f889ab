"""Transforms: a sample in, a sample with an image of one size out. Every random choice is drawn from the ``stream`` argument.

========= ====================================================== =======
name      crop, S = image_size                                   mirror
========= ====================================================== =======
none      short side to S, centre                                never
weak      short side to S, random place                          half
strong    area 0.8 to 1, sides 3:4 to 4:3, resized to S          half
default   area 0.08 to 1, sides 3:4 to 4:3, resized to S         half
layout    area 0.8 to 1.1, sides 0.95 to 1.05, resized to S      half
square    of the centred square 0.7 to 1, square, resized to S   half
bucketed  one of the first four, S: the size of the bucket        -
========= ====================================================== =======

``image_size`` is a number S, or (height, width): then the image is resized until it covers that size, and the sides of random
boxes are relative to it: 3:4 to 4:3 times width : height.

A transform chooses a geometry, and ``Geometry.move`` applies it to image, mask, boxes and points. A crop is cut out before it
is resized: Pillow's ``resize(box=...)`` would mix in pixels from outside the crop. ``min_visibility`` is the smallest fraction
of the area of a box that must be inside the crop; boxes with less are dropped. Only ``stream.random()`` is called, the one
method whose sequence Python guarantees across versions.
"""

from __future__ import annotations

import math
import random
from typing import Literal

from vq.core.specs import ImageSize
from vq.data.buckets import wanted_size
from vq.data.geometry import Geometry, Movable
from vq.data.pixels import Box
from vq.registries import VQTransformRegistry

Range = tuple[float, float]

RATIO: Range = (3 / 4, 4 / 3)  # width : height


def below(stream: random.Random, count: int) -> int:
    """A whole number from 0 to ``count - 1``."""
    return int(stream.random() * count)


def between(stream: random.Random, low: float, high: float) -> float:
    return low + (high - low) * stream.random()


def random_resized_box(height: int, width: int, scale: Range, ratio: Range, stream: random.Random) -> Box:
    """A random box inside an image.

    Its fraction of the area is uniform in ``scale``, its width : height log-uniform in ``ratio``. If ten draws do not fit,
    it is the largest centred box with an aspect ratio within ``ratio``.
    """
    low, high = math.log(ratio[0]), math.log(ratio[1])
    for _ in range(10):
        area = height * width * between(stream, *scale)
        aspect = math.exp(between(stream, low, high))
        box_width, box_height = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < box_width <= width and 0 < box_height <= height:
            top, left = below(stream, height - box_height + 1), below(stream, width - box_width + 1)
            return top, left, box_height, box_width
    box_height, box_width = height, width
    if width / height < ratio[0]:
        box_height = round(width / ratio[0])
    elif width / height > ratio[1]:
        box_width = round(height * ratio[1])
    return (height - box_height) // 2, (width - box_width) // 2, box_height, box_width


def _maybe_mirror(geometry: Geometry, stream: random.Random) -> Geometry:
    return geometry.mirror() if stream.random() < 0.5 else geometry


def _random_resized(
    sample: Movable, start: Geometry, stream: random.Random, size: ImageSize, scale: Range, ratio: Range, min_visibility: float
) -> Movable:
    height, width = sides_of(size)
    if height != width:
        ratio = ratio[0] * width / height, ratio[1] * width / height
    box = random_resized_box(*start.size, scale, ratio, stream)
    return _maybe_mirror(start.crop(box).resize(height, width), stream).move(sample, min_visibility)


def sides_of(size: ImageSize) -> tuple[int, int]:
    """(height, width)."""
    if isinstance(size, int):
        return size, size
    height, width = size
    return int(height), int(width)


def _centre(geometry: Geometry, size: ImageSize) -> Geometry:
    height, width = geometry.size
    rows, columns = sides_of(size)
    return geometry.crop((round((height - rows) / 2), round((width - columns) / 2), rows, columns))


@VQTransformRegistry.register_()  # type: ignore[untyped-decorator]
def none(sample: Movable, stream: random.Random, *, image_size: ImageSize, min_visibility: float = 0.0) -> Movable:
    """Short side resized, centre crop, nothing random; always used in validation. (H, W) -> (S, S)."""
    return centred(Geometry.of(sample), image_size).move(sample, min_visibility)


def centred(whole: Geometry, image_size: ImageSize) -> Geometry:
    """The geometry of ``none``."""
    return _centre(whole.cover(*sides_of(image_size)), image_size)


@VQTransformRegistry.register_()  # type: ignore[untyped-decorator]
def weak(sample: Movable, stream: random.Random, *, image_size: ImageSize, min_visibility: float = 0.0) -> Movable:
    """Random crop along the long side, mirrored half of the time. (H, W) -> (S, S)."""
    height, width = sides_of(image_size)
    resized = Geometry.of(sample).cover(height, width)
    top, left = below(stream, resized.size[0] - height + 1), below(stream, resized.size[1] - width + 1)
    return _maybe_mirror(resized.crop((top, left, height, width)), stream).move(sample, min_visibility)


@VQTransformRegistry.register_()  # type: ignore[untyped-decorator]
def strong(sample: Movable, stream: random.Random, *, image_size: ImageSize, min_visibility: float = 0.0) -> Movable:
    """A random box of at least 80 % of the area, mirrored half of the time. (H, W) -> (S, S)."""
    return _random_resized(sample, Geometry.of(sample), stream, image_size, (0.8, 1.0), RATIO, min_visibility)


@VQTransformRegistry.register_()  # type: ignore[untyped-decorator]
def default(sample: Movable, stream: random.Random, *, image_size: ImageSize, min_visibility: float = 0.0) -> Movable:
    """A random box of at least 8 % of the area, mirrored half of the time. (H, W) -> (S, S)."""
    return _random_resized(sample, Geometry.of(sample), stream, image_size, (0.08, 1.0), RATIO, min_visibility)


@VQTransformRegistry.register_()  # type: ignore[untyped-decorator]
def layout(sample: Movable, stream: random.Random, *, image_size: ImageSize, min_visibility: float = 0.0) -> Movable:
    """Nearly all of the image, for boxes and masks; mirrored half of the time. (H, W) -> (S, S).

    Most photographs are longer than 1.05 : 1, so that no such box fits: then it is the largest centred one of that shape.
    """
    return _random_resized(sample, Geometry.of(sample), stream, image_size, (0.8, 1.1), (0.95, 1.05), min_visibility)


@VQTransformRegistry.register_()  # type: ignore[untyped-decorator]
def square(sample: Movable, stream: random.Random, *, image_size: ImageSize, min_visibility: float = 0.0) -> Movable:
    """A random square of 70 to 100 % of the largest centred one, mirrored half of the time, as in the VQ-VAE/GAN study.

    (H, W) -> (S, S).
    """
    whole = Geometry.of(sample)
    centre = _centre(whole, min(whole.size))
    return _random_resized(sample, centre, stream, image_size, (0.7, 1.0), (1.0, 1.0), min_visibility)


CROPS = {'none': none, 'weak': weak, 'strong': strong, 'default': default}


@VQTransformRegistry.register_()  # type: ignore[untyped-decorator]
def bucketed(
    sample: Movable,
    stream: random.Random,
    *,
    image_size: ImageSize,
    crop: Literal['none', 'weak', 'strong', 'default'] = 'weak',
    min_visibility: float = 0.0,
) -> Movable:
    """``crop`` to the size of the aspect-ratio bucket that the loader asks for; without buckets to ``image_size``."""
    size = wanted_size() or image_size
    moved: Movable = CROPS[crop](sample, stream, image_size=size, min_visibility=min_visibility)
    return moved
