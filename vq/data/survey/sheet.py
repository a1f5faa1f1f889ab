"""Pictures to look at: images as the model gets them, with words above them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

WORDS = 16  # pixels of a line of words
GAP = 4


def sheet(rows: Sequence[tuple[str, Sequence[np.ndarray]]], size: int) -> Image.Image:
    """Rows of images (H, W, 3) uint8 in cells of ``size``, each row below its words. Larger images are made smaller."""
    columns = max(len(images) for _, images in rows)
    width = max(columns * (size + GAP) + GAP, 240)
    picture = Image.new('RGB', (width, len(rows) * (size + WORDS + 2 * GAP) + GAP), 'white')
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(12)
    for number, (words, images) in enumerate(rows):
        top = number * (size + WORDS + 2 * GAP) + GAP
        draw.text((GAP, top), shown(words), fill='black', font=font)
        for column, image in enumerate(images):
            cell = Image.fromarray(image)
            if max(cell.size) > size:
                cell.thumbnail((size, size), Image.Resampling.LANCZOS)
            picture.paste(cell, (GAP + column * (size + GAP), top + WORDS + GAP))
    return picture


def shown(words: str) -> str:
    """Letters that Pillow's own font has; others are shown as a question mark."""
    return ''.join(letter if ord(letter) < 0x250 else '?' for letter in words)


def enlarged(image: np.ndarray, least: int) -> np.ndarray:
    """A small image with each pixel as a square, so that the sheet shows its pixels."""
    factor = max(1, least // max(image.shape[:2]))
    return image.repeat(factor, 0).repeat(factor, 1)
