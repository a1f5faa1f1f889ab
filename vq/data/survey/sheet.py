"""Pictures to look at: images as the model gets them, with words above them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

WORDS = 16  # pixels of a line of words
GAP = 4
MOST_LINES = 4  # of words above a row


def sheet(rows: Sequence[tuple[str, Sequence[np.ndarray]]], size: int) -> Image.Image:
    """Rows of images (H, W, 3) uint8 in cells of ``size``, each row below its words. Larger images are made smaller.

    Words that are wider than the picture go on in the next line.
    """
    columns = max(len(images) for _, images in rows)
    width = max(columns * (size + GAP) + GAP, 240)
    font = ImageFont.load_default(12)
    lines = [folded(shown(words), width - 2 * GAP, font) for words, _ in rows]
    height = sum(len(words) * WORDS + size + 2 * GAP for words in lines) + GAP
    picture, top = Image.new('RGB', (width, height), 'white'), GAP
    draw = ImageDraw.Draw(picture)
    for words, (_, images) in zip(lines, rows, strict=True):
        for line in words:
            draw.text((GAP, top), line, fill='black', font=font)
            top += WORDS
        for column, image in enumerate(images):
            cell = Image.fromarray(image)
            if max(cell.size) > size:
                cell.thumbnail((size, size), Image.Resampling.LANCZOS)
            picture.paste(cell, (GAP + column * (size + GAP), top + GAP))
        top += size + 2 * GAP
    return picture


def folded(words: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> list[str]:
    """Lines of at most ``width`` pixels, MOST_LINES of them; one line if there are no words."""
    lines = ['']
    for word in words.split():
        longer = f'{lines[-1]} {word}'.lstrip()
        if lines[-1] and font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines if len(lines) <= MOST_LINES else [*lines[: MOST_LINES - 1], f'{lines[MOST_LINES - 1]} ...']


def shown(words: str) -> str:
    """Letters that Pillow's own font has; others are shown as a question mark."""
    return ''.join(letter if ord(letter) < 0x250 else '?' for letter in words)


def enlarged(image: np.ndarray, least: int) -> np.ndarray:
    """A small image with each pixel as a square, so that the sheet shows its pixels."""
    factor = max(1, least // max(image.shape[:2]))
    return image.repeat(factor, 0).repeat(factor, 1)
