"""Letters of Pillow's built-in font: pictures that no one has trained on, made like the digits."""

from __future__ import annotations

from string import ascii_letters

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vq.core.random import python_stream
from vq.report.facts import Pixels

LARGE, SMALL = 64, 8  # pixels a side: as drawn, and the resolution of the digits


def letters(count: int, size: tuple[int, int]) -> Pixels:
    """(N, H, W, 3): white on black, all 52 in turns, each of another size and place. They are reduced to 8 x 8 pixels and
    enlarged, as the digits are, so that sharpness does not give them away."""
    found = []
    for number in range(count):
        stream = python_stream('letters', number)
        picture = Image.new('L', (LARGE, LARGE))
        place = (LARGE / 2 + stream.uniform(-4, 4), LARGE / 2 + stream.uniform(-4, 4))
        font = ImageFont.load_default(stream.uniform(52, 68))
        letter = ascii_letters[number % len(ascii_letters)]
        ImageDraw.Draw(picture).text(place, letter, fill=255, font=font, anchor='mm', stroke_width=2)
        small = picture.resize((SMALL, SMALL), Image.Resampling.BOX)
        large = small if small.size == size[::-1] else small.resize(size[::-1], Image.Resampling.BILINEAR)
        found.append(np.repeat(np.asarray(large)[..., None], 3, -1))
    return np.stack(found)
