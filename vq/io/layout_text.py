"""The text file of a layout: a line ``x,y,width,height,class`` for each box, in units of the image.

    0.0625,0.125,0.25,0.34375,boat
    0.5,0.5,0.25,0.25,2

x and y are those of the left upper corner. The class is all that follows the fourth comma: a name, or a number.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vq.core.errors import UserError
from vq.core.reading import read_bytes

SUFFIX = '.txt'
HINT = 'Write a line x,y,width,height,class for each box, in units of the image: 0.1,0.2,0.25,0.5,boat.'


def layout_text(
    boxes: Sequence[Sequence[float]], categories: Sequence[int | str], size: tuple[int, int], names: Sequence[str] = ()
) -> str:
    """Boxes x1, y1, x2, y2 in pixels of an image of ``size`` (height, width), and their classes -> the lines.

    A number below the number of ``names`` is written as its name. Numbers of the file have all their digits, so that reading
    gives the same boxes up to rounding of fp64.
    """
    height, width = size
    lines = []
    for (left, top, right, bottom), category in zip(boxes, categories, strict=True):
        sides = left / width, top / height, (right - left) / width, (bottom - top) / height
        named = names[category] if isinstance(category, int) and 0 <= category < len(names) else category
        lines.append(','.join([*map(repr, map(float, sides)), str(named)]))
    return ''.join(f'{line}\n' for line in lines)


def read_layout_text(path: Path, size: tuple[int, int]) -> dict[str, Any]:
    """The layout in a text file, in pixels of an image of ``size``: ``{"boxes": [...], "categories": [...]}``."""
    try:
        text = read_bytes(path).decode()
    except (OSError, ValueError) as error:
        raise UserError(f'the layout in {path} cannot be read: {error}', HINT) from error
    height, width = size
    boxes, categories = [], []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        *parts, category = line.split(',', 4)
        try:
            x, y, across, down = map(float, parts)
            if not all(map(math.isfinite, (x, y, across, down))) or across < 0 or down < 0 or not category.strip():
                raise ValueError
        except ValueError as error:
            raise UserError(f'line {number} of {path} is {line!r:.60}', HINT) from error
        boxes.append([x * width, y * height, (x + across) * width, (y + down) * height])
        categories.append(category.strip())
    return {'boxes': boxes, 'categories': categories}
