"""Image files to RGB arrays. A file that cannot be decoded completely raises ``BadImage`` with the reason.

Truncated images are never used. Pillow's ``LOAD_TRUNCATED_IMAGES`` stays off. Older versions of OpenCV fill missing pixels
with grey, so OpenCV only gets JPEG files that end with the end marker. The checksums of PNG chunks are compared here, because
Pillow skips those of pixel data. JPEG, BMP, GIF, TIFF and WebP have no checksums: changed bytes inside their pixel data that
no decoder reports are not detected.

Alpha is dropped, not blended, as in torchvision's loaders: transparent pixels show the colours stored in them.
"""

from __future__ import annotations

import contextlib
import functools
import io
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from vq.core.errors import ConfigError, UserError, nearest
from vq.core.reading import read_bytes

Backend = Literal['pillow', 'cv2']

PIXEL_LIMIT = 89_478_485  # Pillow's own: a quarter of a gigabyte of RGB
LARGEST = 2**26  # bytes of a file, and 16 more for each pixel: four channels of 32 bits
FORMATS = ('JPEG', 'PNG', 'WEBP', 'BMP', 'GIF', 'TIFF', 'PPM')  # other formats need interpreters or never hold photographs
PNG = b'\x89PNG\r\n\x1a\n'  # the first bytes of a file
END_OF_JPEG = b'\xff\xd9'
ORIENTATION = 0x0112  # the EXIF tag

_limit_lock = threading.Lock()


class BadImage(Exception):
    """A file that is not a complete, still image within the pixel limit."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f'{self.path}: {self.reason}' if self.path else self.reason


@functools.cache
def prepare_backend(backend: str) -> None:
    """Import the packages of ``backend``: worker processes inherit them, and a missing package is reported at once."""
    if backend not in get_args(Backend):
        raise ConfigError(
            f"there is no image backend '{backend}'{nearest(backend, get_args(Backend))}", "Use 'pillow' or 'cv2'."
        )
    if backend == 'cv2':
        try:
            import cv2
            import mmcv  # noqa: F401
        except ImportError as error:
            raise UserError(
                f"the image backend 'cv2' cannot be imported: {error}", "pip install 'vq[mm]', or set backend to 'pillow'."
            ) from error
        cv2.setNumThreads(0)  # OpenCV's thread pool does not survive a fork, and does not speed up single images


def decode_image(source: bytes | str | Path, backend: Backend = 'pillow', pixel_limit: int = PIXEL_LIMIT) -> np.ndarray:
    """Decode a file, or its bytes, to (H, W, 3) uint8 RGB with EXIF orientation applied. Do not write to the array."""
    path = '<bytes>' if isinstance(source, bytes) else str(source)
    try:
        data = source if isinstance(source, bytes) else read_bytes(source, LARGEST + 16 * pixel_limit)
    except OSError as error:
        raise BadImage(path, f'cannot be read: {error.strerror or error}') from error
    except ValueError as error:  # too many bytes, or a null byte in the name
        raise BadImage(path, f'cannot be read: {error}') from error
    if not data:
        raise BadImage(path, 'is empty (zero bytes)')
    if backend != 'pillow':
        prepare_backend(backend)
    image = _open(data, path, pixel_limit)
    cut = _check_chunks(data, path) if data.startswith(PNG) else ''
    pixels = _with_opencv(data, image) if backend == 'cv2' else None
    if pixels is None:
        pixels = _with_pillow(image, path)
    if cut:  # Pillow and OpenCV decode it, where what is left has all rows
        raise BadImage(path, f'cannot be decoded: it is truncated in its {cut} chunk')
    return _upright(pixels, orientation_of(image))


def _open(data: bytes, path: str, pixel_limit: int) -> ImageFile.ImageFile:
    """Read only the header, and check it before memory for the pixels is allocated."""
    try:
        with _pillow_allows(pixel_limit):
            image = Image.open(io.BytesIO(data), formats=FORMATS)
        moving = image.format != 'MPO' and getattr(image, 'is_animated', False)  # MPO: a photograph with a second view of it
    except UnidentifiedImageError as error:
        raise BadImage(path, f'is not an image, or its header is damaged (it begins with {data[:12]!r})') from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:  # the warning is raised under -W error
        raise BadImage(path, f'has more than {pixel_limit} pixels, a decompression bomb') from error
    except MemoryError:
        raise
    except Exception as error:  # on damaged headers Pillow's plugins raise exceptions of many types
        raise BadImage(path, f'has a damaged header: {_words(error)}') from error
    if image.width * image.height > pixel_limit:
        raise BadImage(
            path,
            f'has {image.width} x {image.height} pixels, over the limit of {pixel_limit}: '
            'a decompression bomb; for a real image raise pixel_limit',
        )
    if moving:
        raise BadImage(path, 'holds more than one frame (animated or several pages)')
    return image


@contextlib.contextmanager
def _pillow_allows(pixel_limit: int) -> Iterator[None]:
    """While a header is read, raise Pillow's own limit to ``pixel_limit`` if it is lower."""
    if Image.MAX_IMAGE_PIXELS is None or pixel_limit <= Image.MAX_IMAGE_PIXELS:
        yield
        return
    with _limit_lock:
        before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, pixel_limit
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = before


def _check_chunks(data: bytes, path: str) -> str:
    """Compare the CRC-32 of every PNG chunk: length (4 bytes), type (4), content, CRC (4).

    Returns the type of a chunk that ends beyond the file; '' if there is none.
    """
    view, place = memoryview(data), len(PNG)
    while place + 12 <= len(data):
        end = place + 8 + int.from_bytes(view[place : place + 4])
        kind = bytes(view[place + 4 : place + 8])
        if end + 4 > len(data):
            return kind.decode('ascii', 'replace')
        if zlib.crc32(view[place + 4 : end]) != int.from_bytes(view[end : end + 4]):
            raise BadImage(path, f'is damaged: the checksum of its {kind.decode("ascii", "replace")} chunk is wrong')
        if kind == b'IEND':
            break
        place = end + 4
    return ''


def _with_pillow(image: ImageFile.ImageFile, path: str) -> np.ndarray:
    try:
        image.load()
        if image.mode[0] in 'IF':
            return _deep_grey(image, path)
        if image.mode == 'P':  # a direct conversion to RGB would take the transparency of a palette for a colour
            return np.asarray(image.convert('RGBA').convert('RGB'))
        return np.asarray(image if image.mode == 'RGB' else image.convert('RGB'))
    except (BadImage, MemoryError):
        raise
    except Exception as error:  # on damaged data Pillow's decoders raise exceptions of many types
        raise BadImage(path, f'cannot be decoded: {_words(error)}') from error


def _deep_grey(image: Image.Image, path: str) -> np.ndarray:
    """16 bits to 8: round(v / 257), which takes 65535 to 255. (H, W) -> (H, W, 3)."""
    if image.mode == 'F':
        raise BadImage(path, 'has floating-point pixels of unknown range')
    values = np.asarray(image)
    if values.min() < 0 or values.max() > 65535:
        raise BadImage(path, f'has values from {values.min()} to {values.max()}, beyond 16 bits')
    grey = ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)  # 257 is odd: no ties
    return np.repeat(grey[:, :, None], 3, axis=2)


def _with_opencv(data: bytes, image: ImageFile.ImageFile) -> np.ndarray | None:
    """Decode plain JPEG by OpenCV. None for files that OpenCV cannot decode, or would decode differently from Pillow."""
    plain = image.format == 'JPEG' and image.mode in ('RGB', 'L')
    if not plain or not data.endswith(END_OF_JPEG):
        return None
    import mmcv

    # mmcv converts BGR to RGB only with its flag 'color', which also applies EXIF: so the conversion is done here
    pixels: Any = mmcv.imfrombytes(data, flag='color_ignore_orientation', channel_order='bgr', backend='cv2')
    return None if pixels is None else mmcv.bgr2rgb(pixels)


def orientation_of(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ORIENTATION, 1))
    except Exception:  # damaged EXIF is ignored: the pixels are complete without it
        return 1


def _upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Undo EXIF orientation 1..8 on (H, W, 3); other numbers are ignored."""
    if orientation not in range(2, 9):
        return pixels
    if orientation >= 5:
        pixels = pixels.transpose(1, 0, 2)
    rows = -1 if orientation in (3, 4, 7, 8) else 1
    columns = -1 if orientation in (2, 3, 6, 7) else 1
    return np.ascontiguousarray(pixels[::rows, ::columns])


def _words(error: Exception) -> str:
    return f'{type(error).__name__}: {error}'.strip(': ')
