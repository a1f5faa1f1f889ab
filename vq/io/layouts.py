"""Layouts to draw, from a JSON file: boxes with their categories, in pixels.

    [{"boxes": [[4, 8, 20, 30]], "categories": ["boat"]}, {"boxes": [[0, 0, 32, 16], [3, 17, 30, 32]], "categories": [2, 0]}]

Image i takes layout i mod n. A category is a number, or a name of a class of the generator.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vq.core.class_names import class_numbers
from vq.core.errors import UserError
from vq.core.reading import read_json
from vq.io.layout_text import SUFFIX, read_layout_text

if TYPE_CHECKING:
    from vq.core.conditions import Condition

HINT = 'Write [{"boxes": [[x1, y1, x2, y2], ...], "categories": [...]}, ...], in pixels.'


def read_layouts(
    path: Path, names: Sequence[str] = (), count: int | None = None, size: tuple[int, int] | None = None
) -> Condition:
    """The layouts in a file; see ``layouts_in``. ``size``: (height, width) of the images, for a file of text, whose boxes are
    in their units (``layout_text.py``)."""
    if path.suffix == SUFFIX:
        if size is None:
            raise UserError(f'{path} is in units of the image, whose size is not known', HINT)
        return layouts_in(read_layout_text(path, size), str(path), names, count)
    try:
        content = read_json(path)
    except (OSError, ValueError) as error:
        raise UserError(f'the layouts in {path} cannot be read: {error}', HINT) from error
    return layouts_in(content, str(path), names, count)


def layouts_in(content: Any, source: str, names: Sequence[str] = (), count: int | None = None) -> Condition:
    """Boxes (n, M, 4), their categories (n, M) and which of them are there, a row per layout.

    names, count: of the classes, as in ``class_numbers``. source: where the content is from, for messages.
    """
    import torch

    from vq.core.conditions import Condition

    rows = content if isinstance(content, list) else [content]
    if not rows:
        raise UserError(f'{source} has no layout', HINT)
    found = [_layout(row, f'layout {number} of {source}', names, count) for number, row in enumerate(rows)]
    most = max(1, *(len(boxes) for boxes, _ in found))
    boxes, categories = torch.zeros(len(found), most, 4), torch.zeros(len(found), most, dtype=torch.int64)
    there = torch.zeros(len(found), most, dtype=torch.bool)
    for row, (corners, numbers) in enumerate(found):
        if corners:
            boxes[row, : len(corners)], categories[row, : len(corners)] = torch.tensor(corners), torch.tensor(numbers)
        there[row, : len(corners)] = True
    return Condition(boxes=boxes, box_categories=categories, boxes_mask=there)


def _layout(row: Any, where: str, names: Sequence[str], count: int | None) -> tuple[list[list[float]], list[int]]:
    boxes = row.get('boxes') if isinstance(row, Mapping) else None
    categories = row.get('categories') if isinstance(row, Mapping) else None
    if not isinstance(boxes, list) or not isinstance(categories, list) or len(boxes) != len(categories):
        raise UserError(f'{where} has no boxes with a category each', HINT)
    for box in boxes:
        numbers = isinstance(box, list) and len(box) == 4 and all(type(side) in (int, float) for side in box)
        if not numbers or not all(map(math.isfinite, box)) or box[2] < box[0] or box[3] < box[1]:
            raise UserError(f'{where} has the box {box!r:.60}', HINT)
    if not all(type(one) in (int, str) for one in categories):
        raise UserError(f'{where} has the categories {categories!r:.60}', HINT)
    return [[float(side) for side in box] for box in boxes], class_numbers(categories, names, count, where)
