"""Decoders of JPEG files that are faster than Pillow.

All are libjpeg-turbo, as Pillow is, so they give its pixels wherever they are built with a similar version: within 2 levels by
contract. They differ in what they refuse. A decoder only gets complete files of the plain kinds (grey, or YCbCr that becomes
RGB). ``decode.py`` gives everything else, and files that a decoder refuses, to Pillow, and notes it.
"""

from __future__ import annotations

import functools
import importlib.util
import logging
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from vq.core.errors import ConfigError, UserError, nearest

Backend = Literal['pillow', 'auto', 'simplejpeg', 'torchvision', 'cv2']

END_OF_JPEG = b'\xff\xd9'

logger = logging.getLogger('vq')


class Refused(Exception):
    """A decoder does not take a file."""


class Decoder(NamedTuple):
    """``decode`` takes the bytes of a file and its size (H, W) after division by a factor of 1, 2, 4 or 8, and gives that
    (H, W, 3) uint8 RGB without regard to EXIF, or raises ``Refused``."""

    name: Backend
    modules: tuple[str, ...]
    extra: str  # the requirement that pip takes
    decode: Callable[[bytes, tuple[int, int], int], np.ndarray]
    divides: bool = False  # takes factors other than 1


def _simplejpeg(data: bytes, size: tuple[int, int], factor: int) -> np.ndarray:
    import simplejpeg

    try:
        pixels: np.ndarray = simplejpeg.decode_jpeg(data, 'RGB', min_height=size[0], min_width=size[1], min_factor=factor)
    except ValueError as error:  # also for damage that libjpeg only warns of
        raise Refused(str(error)) from error
    return pixels


def _torchvision(data: bytes, size: tuple[int, int], factor: int) -> np.ndarray:
    import torch
    from torchvision.io import ImageReadMode, decode_jpeg

    try:
        pixels = decode_jpeg(torch.from_numpy(np.frombuffer(data, np.uint8).copy()), ImageReadMode.RGB)  # (3, H, W)
    except RuntimeError as error:
        raise Refused(str(error).partition('\n')[0]) from error
    return np.ascontiguousarray(pixels.permute(1, 2, 0).numpy())  # (H, W, 3); a view of rows already


def _opencv(data: bytes, size: tuple[int, int], factor: int) -> np.ndarray:
    import mmcv

    # mmcv converts BGR to RGB only with its flag 'color', which also applies EXIF: so the conversion is done here
    pixels: Any = mmcv.imfrombytes(data, flag='color_ignore_orientation', channel_order='bgr', backend='cv2')
    if pixels is None:
        raise Refused('OpenCV gives no reason')
    converted: np.ndarray = mmcv.bgr2rgb(pixels)
    return converted


FASTEST_FIRST = (
    Decoder('simplejpeg', ('simplejpeg',), 'vq[fast]', _simplejpeg, divides=True),
    Decoder('torchvision', ('torchvision',), 'torchvision', _torchvision),
    Decoder('cv2', ('cv2', 'mmcv'), 'vq[mm]', _opencv),
)


def plain_size(data: bytes) -> tuple[int, int] | None:
    """(height, width) of a complete grey or YCbCr JPEG file, or None for a file that Pillow has to look at.

    The walk over the markers before the pixels takes a fifth of the time of opening the file with Pillow. EXIF, a second
    view, and Adobe's colour spaces are in segments that are not taken here.
    """
    if not data.startswith(b'\xff\xd8') or not data.endswith(END_OF_JPEG):
        return None
    place, size = 2, None
    while place + 10 <= len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        if marker == 0xDA:  # the pixels begin
            return size
        if marker in (0xC0, 0xC1, 0xC2):  # baseline, extended, progressive
            height, width = data[place + 5] << 8 | data[place + 6], data[place + 7] << 8 | data[place + 8]
            if data[place + 4] != 8 or data[place + 9] not in (1, 3) or not height or not width:
                return None
            size = height, width
        elif marker not in (0xC4, 0xDB, 0xDD, 0xE0, 0xFE):  # tables, JFIF, comment
            return None
        place += 2 + (data[place + 2] << 8 | data[place + 3])
    return None


@functools.cache
def decoder_of(backend: str) -> Decoder | None:
    """The decoder of a backend, with its packages imported: worker processes inherit them. None: Pillow is used.

    'auto' is the first that is installed. A package that another backend lacks is reported at once.
    """
    if backend not in get_args(Backend):
        raise ConfigError(
            f"there is no image backend '{backend}'{nearest(backend, get_args(Backend))}",
            f'It is one of: {", ".join(get_args(Backend))}.',
        )
    if backend == 'pillow':
        return None
    if backend == 'auto':
        there = (one for one in FASTEST_FIRST if all(map(importlib.util.find_spec, one.modules)))
        found = next(filter(_works, there), None)
        logger.info('JPEG files are decoded by %s, the fastest that is installed', 'Pillow' if found is None else found.name)
    else:
        found = next(one for one in FASTEST_FIRST if one.name == backend)
        try:
            _import(found)
        except ImportError as error:
            raise UserError(
                f"the image backend '{backend}' cannot be imported: {error}",
                f"pip install '{found.extra}', or set backend to 'pillow' or 'auto'.",
            ) from error
    if found is not None and found.name == 'cv2':
        import cv2

        cv2.setNumThreads(0)  # OpenCV's thread pool does not survive a fork, and does not speed up single images
    return found


def _import(decoder: Decoder) -> None:
    for module in decoder.modules:
        importlib.import_module(module)


def _works(decoder: Decoder) -> bool:
    """Whether an installed decoder can be imported: one built for another version of torch or NumPy cannot."""
    try:
        _import(decoder)
    except (ImportError, OSError, RuntimeError):
        return False
    return True
