"""Every image of a folder read once, in several processes: whether it can be decoded, its size, kind and content.

Worker processes import neither torch nor the registries, so that they start in a fraction of a second.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from vq.core.reading import read_bytes
from vq.data.decode import LARGEST, PIXEL_LIMIT, PNG, BadImage, decode_image, orientation_of
from vq.data.spread import spread

SMALL = (32, 32)  # the size at which pixels are compared

SRGB = (b'sRGB', 'sRGB'.encode('utf-16-be'))  # in the description of a profile, by its version
GREY = ('1', 'L', 'LA', 'I', 'F', 'I;16', 'I;16B', 'I;16L', 'I;16N')
KINDS = {  # kind -> what is done with it
    'RGB, 8 bits': 'read as it is',
    'grey': 'the same value in three channels',
    'palette': 'converted to RGB',
    'CMYK': 'converted to RGB, without a colour profile',
    '16 bits': 'rounded to 8 bits',
    'alpha': 'dropped: transparent pixels show the colour stored in them',
    'EXIF rotation': 'turned upright',
    'colour profile': 'ignored: the numbers are taken as sRGB',
}


class Facts(NamedTuple):
    """One image file. ``reason``: why it is bad; then only ``content`` is known, if it could be read."""

    reason: str = ''
    width: int = 0
    height: int = 0
    kinds: tuple[str, ...] = ()
    content: bytes = b''  # digest of the bytes
    pixels: bytes = b''  # digest of the decoded image at a small size


def inspect(path: str | Path, pixel_limit: int = PIXEL_LIMIT) -> Facts:
    """Decode a file completely, as training does, without a transform."""
    try:
        data = read_bytes(path, LARGEST + 16 * pixel_limit)
    except OSError as error:
        return Facts(f'cannot be read: {error.strerror or error}')
    except ValueError as error:
        return Facts(f'cannot be read: {error}')
    content = hashlib.sha256(data).digest()[:16]
    try:
        pixels = decode_image(data, pixel_limit=pixel_limit)
    except BadImage as error:
        return Facts(error.reason, content=content)
    with Image.open(io.BytesIO(data)) as image:
        return facts_of(pixels, content, kinds_of(image, data))


def facts_of(pixels: np.ndarray, content: bytes, kinds: tuple[str, ...]) -> Facts:
    height, width = pixels.shape[:2]
    small = Image.fromarray(pixels).resize(SMALL, Image.Resampling.BOX)
    digest = hashlib.sha256(f'{width} {height}'.encode() + small.tobytes()).digest()[:16]
    return Facts('', width, height, kinds, content, digest)


def kinds_of(image: Image.Image, data: bytes) -> tuple[str, ...]:
    """What is unusual about an image file, in the words of ``KINDS``."""
    mode = image.mode
    deep = mode[0] == 'I' or (data.startswith(PNG) and data[24:25] == b'\x10')
    colours = 'grey' if mode in GREY else 'palette' if mode in ('P', 'PA') else 'CMYK' if mode == 'CMYK' else ''
    profile = image.info.get('icc_profile') or b''
    standard = any(name in profile for name in SRGB)
    found = [colours] if colours else []
    found += ['16 bits'] if deep else []
    found += ['alpha'] if mode in ('RGBA', 'LA', 'PA') or 'transparency' in image.info else []
    found += ['colour profile'] if profile and not standard else []
    found += ['EXIF rotation'] if orientation_of(image) in range(2, 9) else []
    return tuple(found) or ('RGB, 8 bits',)


def inspect_all(
    root: Path, paths: Sequence[str], workers: int, advance: Callable[[int], None], pixel_limit: int = PIXEL_LIMIT
) -> Iterator[Facts]:
    """Facts of all paths, in their order. ``advance`` is told how many more are done."""
    return spread(_inspect_below, (root, pixel_limit), paths, workers, advance)


def _inspect_below(settings: tuple[Path, int], path: str) -> Facts:
    return inspect(settings[0] / path, settings[1])
