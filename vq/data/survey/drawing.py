"""A sample as pictures: the image with its boxes and points, the mask over the image, and words for the rest."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vq.data.survey.sheet import enlarged, shown
from vq.interfaces import Sample

LETTERS = 60  # of a text or an array in words
MOST = 24  # labels of a mask that are named
NAMED = ('id', 'path', 'image', 'category', 'text', 'boxes', 'box_categories', 'mask', 'points')


def pictures(sample: Sample, cell: int, labels: Sequence[str] | None = None) -> list[np.ndarray]:
    """Arrays (h, w, 3) uint8 with sides of at most ``cell``: the image, with boxes and points, and its mask if it has one.

    ``labels``: names of the classes of boxes, by number.
    """
    image = sample['image']
    fitted = fit(image, cell)
    found = [with_shapes(fitted, sample, fitted.shape[1] / image.shape[1], labels)]
    if sample.get('mask') is not None:
        found.append(with_mask(image, np.asarray(sample['mask']), cell))
    return found


def fit(image: np.ndarray, cell: int) -> np.ndarray:
    """Large images are made smaller, of small ones each pixel becomes a square."""
    if max(image.shape[:2]) <= cell:
        return enlarged(image, cell)
    made = Image.fromarray(image)
    made.thumbnail((cell, cell), Image.Resampling.LANCZOS)
    return np.asarray(made)


def with_shapes(image: np.ndarray, sample: Sample, scale: float, labels: Sequence[str] | None) -> np.ndarray:
    """``image`` is ``scale`` times as large as that of the sample."""
    boxes = np.asarray(sample.get('boxes', ()), np.float64).reshape(-1, 4) * scale
    points = np.asarray(sample.get('points', ()), np.float64).reshape(-1, 2) * scale
    if not len(boxes) and not len(points):
        return image
    made = Image.fromarray(image)
    draw, font = ImageDraw.Draw(made), ImageFont.load_default(10)
    kinds = sample.get('box_categories')
    for number, (left, top, right, bottom) in enumerate(boxes.tolist()):
        kind = number if kinds is None else int(kinds[number])
        draw.rectangle((left, top, max(left, right - 1), max(top, bottom - 1)), outline=colour(kind))
        if kinds is not None:
            draw.text((left + 2, top + 1), shown(name_of(kind, labels)), fill=colour(kind), font=font)
    for number, (x, y) in enumerate(points.tolist()):
        draw.ellipse((x - 2, y - 2, x + 2, y + 2), outline=colour(number))
    return np.asarray(made)


def with_mask(image: np.ndarray, mask: np.ndarray, cell: int) -> np.ndarray:
    """Half the image, half a colour for each label. Label 0 stays as it is."""
    labels = np.unique(mask)
    colours = np.array([colour(int(label)) for label in labels], np.uint16)
    painted = colours[np.searchsorted(labels, mask)]  # (H, W, 3)
    mixed = np.where(mask[..., None] == 0, image, (image.astype(np.uint16) + painted) // 2).astype(np.uint8)
    return fit(mixed, cell)


def colour(number: int) -> tuple[int, int, int]:
    """Colours of neighbouring numbers are far apart: their hues differ by the golden ratio."""
    red, green, blue = colorsys.hsv_to_rgb(number * 0.618034 % 1, 0.9, 1.0)
    return round(255 * red), round(255 * green), round(255 * blue)


def name_of(number: int, names: Sequence[str] | None) -> str:
    name = names[number] if names is not None and 0 <= number < len(names) else ''
    return f'{number} {name}' if name not in ('', str(number)) else str(number)


def words(sample: Sample, names: Sequence[str] | None = None, labels: Sequence[str] | None = None) -> list[str]:
    """What a sample holds, a line for each field. ``names``: of classes; ``labels``: of classes of boxes and masks."""
    said = [f'image: {describe(sample["image"])}']
    if sample.get('category') is not None:
        said.append(f'category: {name_of(int(sample["category"]), names)}')
    if sample.get('text') is not None:
        said.append(f'text: {sample["text"]}')
    if sample.get('boxes') is not None:
        kinds = sample.get('box_categories')
        listed = '' if kinds is None else ': ' + ', '.join(name_of(int(kind), labels) for kind in kinds)
        said.append(f'boxes: {len(sample["boxes"])}{listed}')
    if sample.get('mask') is not None:
        found = [name_of(int(label), labels) for label in np.unique(np.asarray(sample['mask']))]
        said.append(f'mask: {np.shape(sample["mask"])}, labels {", ".join(found[:MOST])}{", ..." * (len(found) > MOST)}')
    if sample.get('points') is not None:
        said.append(f'points: {len(sample["points"])}')
    others = {name: value for name, value in sample.items() if name not in (*NAMED, 'extra')} | (sample.get('extra') or {})
    return said + [f'{name}: {short(value)}' for name, value in others.items() if value is not None]


def describe(pixels: np.ndarray) -> str:
    """An image (H, W, 3) in words."""
    means = ' '.join(f'{mean:.0f}' for mean in pixels.reshape(-1, 3).mean(0))
    return f'{pixels.shape} {pixels.dtype}, values {pixels.min()} to {pixels.max()}, mean {means}'


def short(value: Any) -> str:
    if isinstance(value, np.ndarray) and value.size > 8:
        return f'{value.shape} {value.dtype}, values {value.min()} to {value.max()}'
    text = ' '.join(str(value).split())
    return text if len(text) <= LETTERS else f'{text[: LETTERS - 3]}...'
