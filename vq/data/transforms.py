"""Image transforms: RGB array in, square RGB array out. Every random choice is drawn from the ``stream`` argument.

========= ====================================================== =======
name      crop, S = image_size                                   mirror
========= ====================================================== =======
none      short side to S, centre                                never
weak      short side to S, random place                          half
strong    area 0.8 to 1, sides 3:4 to 4:3, resized to S          half
default   area 0.08 to 1, sides 3:4 to 4:3, resized to S         half
square    of the centred square 0.7 to 1, square, resized to S   half
========= ====================================================== =======

Resizing is antialiased bicubic, bit-identical to torchvision's with PIL images and Pillow up to 12. A crop is cut out before
it is resized: Pillow's ``resize(box=...)`` would mix in pixels from outside the crop. Only ``stream.random()`` is called, the
one method whose sequence Python guarantees across versions.
"""

from __future__ import annotations

import math
import random

import numpy as np
from PIL import Image

from vq.data.decode import PIXEL_LIMIT, BadImage
from vq.registries import VQTransformRegistry

Range = tuple[float, float]
Box = tuple[int, int, int, int]  # top, left, height, width

RATIO: Range = (3 / 4, 4 / 3)  # width : height
BICUBIC = Image.Resampling.BICUBIC


def below(stream: random.Random, count: int) -> int:
    """A whole number from 0 to ``count - 1``."""
    return int(stream.random() * count)


def between(stream: random.Random, low: float, high: float) -> float:
    return low + (high - low) * stream.random()


def short_side_size(height: int, width: int, size: int) -> tuple[int, int]:
    """(height, width) after resizing the short side to ``size``; the long side is rounded down."""
    if height <= width:
        return size, int(size * width / height)
    return int(size * height / width), size


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


def resize_short_side(image: np.ndarray, size: int) -> np.ndarray:
    height, width = short_side_size(image.shape[0], image.shape[1], size)
    if height * width > PIXEL_LIMIT:  # a strip one pixel high is a small file, and gigabytes after resizing
        raise BadImage('', f'is {image.shape[1]} x {image.shape[0]}, too long and narrow for a short side of {size}')
    return image if image.shape[:2] == (height, width) else resize(image, height, width)


def resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Antialiased bicubic: first along rows, rounded to 8 bits, then along columns.

    The order is explicit: Pillow up to 12 begins with rows, Pillow 13 with the cheaper direction. The results differ by
    several levels, which changes evaluation figures.
    """
    rows = Image.fromarray(image).resize((width, image.shape[0]), BICUBIC)
    return np.asarray(rows.resize((width, height), BICUBIC))


def crop(image: np.ndarray, box: Box) -> np.ndarray:
    top, left, height, width = box
    return image[top : top + height, left : left + width]


def maybe_mirror(image: np.ndarray, stream: random.Random) -> np.ndarray:
    return np.ascontiguousarray(image[:, ::-1]) if stream.random() < 0.5 else image


def _random_resized(image: np.ndarray, stream: random.Random, size: int, scale: Range) -> np.ndarray:
    box = random_resized_box(image.shape[0], image.shape[1], scale, RATIO, stream)
    return maybe_mirror(resize(crop(image, box), size, size), stream)


@VQTransformRegistry.register_()  # type: ignore[untyped-decorator]
def none(image: np.ndarray, stream: random.Random, *, image_size: int) -> np.ndarray:
    """Short side resized, centre crop, nothing random; always used in validation. (H, W, 3) uint8 -> (S, S, 3) uint8."""
    image = resize_short_side(image, image_size)
    top, left = round((image.shape[0] - image_size) / 2), round((image.shape[1] - image_size) / 2)
    return crop(image, (top, left, image_size, image_size))


@VQTransformRegistry.register_()  # type: ignore[untyped-decorator]
def weak(image: np.ndarray, stream: random.Random, *, image_size: int) -> np.ndarray:
    """Random crop along the long side, mirrored half of the time. (H, W, 3) uint8 -> (S, S, 3) uint8."""
    image = resize_short_side(image, image_size)
    top, left = below(stream, image.shape[0] - image_size + 1), below(stream, image.shape[1] - image_size + 1)
    return maybe_mirror(crop(image, (top, left, image_size, image_size)), stream)


@VQTransformRegistry.register_()  # type: ignore[untyped-decorator]
def strong(image: np.ndarray, stream: random.Random, *, image_size: int) -> np.ndarray:
    """A random box of at least 80 % of the area, mirrored half of the time. (H, W, 3) uint8 -> (S, S, 3) uint8."""
    return _random_resized(image, stream, image_size, (0.8, 1.0))


@VQTransformRegistry.register_()  # type: ignore[untyped-decorator]
def default(image: np.ndarray, stream: random.Random, *, image_size: int) -> np.ndarray:
    """A random box of at least 8 % of the area, mirrored half of the time. (H, W, 3) uint8 -> (S, S, 3) uint8."""
    return _random_resized(image, stream, image_size, (0.08, 1.0))


@VQTransformRegistry.register_()  # type: ignore[untyped-decorator]
def square(image: np.ndarray, stream: random.Random, *, image_size: int) -> np.ndarray:
    """A random square of 70 to 100 % of the largest centred one, mirrored half of the time, as in the VQ-VAE/GAN study.

    (H, W, 3) uint8 -> (S, S, 3) uint8.
    """
    side = min(image.shape[:2])
    top, left = round((image.shape[0] - side) / 2), round((image.shape[1] - side) / 2)
    centre = crop(image, (top, left, side, side))
    box = random_resized_box(side, side, (0.7, 1.0), (1.0, 1.0), stream)
    return maybe_mirror(resize(crop(centre, box), image_size, image_size), stream)
