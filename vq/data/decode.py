"""Image files to RGB arrays. A file that cannot be decoded completely raises ``BadImage`` with the reason.

Truncated images are never used. Pillow's ``LOAD_TRUNCATED_IMAGES`` stays off. Some of the faster decoders (``jpeg.py``) fill
missing pixels with grey, so they only get JPEG files that end with the end marker. The checksums of PNG chunks are compared
here, because Pillow skips those of pixel data. JPEG, BMP, GIF, TIFF and WebP have no checksums: changed bytes inside their
pixel data that no decoder reports are not detected.

Alpha is dropped, not blended, as in torchvision's loaders: transparent pixels show the colours stored in them.
"""

from __future__ import annotations

import contextlib
import io
import threading
import zlib
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from vq.core.reading import open_regular, read_bytes
from vq.data.jpeg import END_OF_JPEG, Decoder, Refused, decoder_of, plain_size
from vq.data.jpeg import Backend as Backend  # of the datasets too
from vq.data.remote_root import read_remote

Fallbacks = dict[str, tuple[int, str]]  # kind of file -> how many, path of the first

PIXEL_LIMIT = 89_478_485  # Pillow's own: a quarter of a gigabyte of RGB
LARGEST = 2**26  # bytes of a file, and 16 more for each pixel: four channels of 32 bits
FORMATS = ('JPEG', 'PNG', 'WEBP', 'BMP', 'GIF', 'TIFF', 'PPM')  # other formats need interpreters or never hold photographs
PNG = b'\x89PNG\r\n\x1a\n'  # the first bytes of a file
ORIENTATION = 0x0112  # the EXIF tag

_limit_lock = threading.Lock()
_fallbacks: ContextVar[Fallbacks | None] = ContextVar('fallbacks', default=None)


class BadImage(Exception):
    """A file that is not a complete, still image within the pixel limit."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f'{self.path}: {self.reason}' if self.path else self.reason


def prepare_backend(backend: str) -> None:
    """Import the packages of ``backend``: worker processes inherit them, and a missing package is reported at once."""
    decoder_of(backend)


@contextlib.contextmanager
def noting_fallbacks() -> Iterator[Fallbacks]:
    """Collect which files are decoded by Pillow meanwhile, in this thread, although another backend was asked for."""
    found: Fallbacks = {}
    token = _fallbacks.set(found)
    try:
        yield found
    finally:
        _fallbacks.reset(token)


def decode_image(
    source: bytes | str | Path, backend: Backend = 'pillow', pixel_limit: int = PIXEL_LIMIT, decode_to: int | None = None
) -> np.ndarray:
    """Decode a file, or its bytes, to (H, W, 3) uint8 RGB with EXIF orientation applied. Do not write to the array.

    ``decode_to``: a JPEG file whose sides are at least twice this is decoded to a half, a quarter or an eighth of its sides,
    which takes a fraction of the time; the sides stay at least as long as this.
    """
    path = '<bytes>' if isinstance(source, bytes) else str(source)
    data = source if isinstance(source, bytes) else file_bytes(path, pixel_limit)
    if not data:
        raise BadImage(path, 'is empty (zero bytes)')
    fast = decoder_of(backend)
    if fast is not None and (plain := plain_size(data)) is not None and plain[0] * plain[1] <= pixel_limit:
        factor = _factor(plain, decode_to)
        size = _divided(plain, factor)
        with contextlib.suppress(Refused):  # below it is refused again, noted, and decoded by Pillow
            if (factor == 1 or fast.divides) and (decoded := fast.decode(data, size, factor)).shape == (*size, 3):
                return decoded
    image = open_image(data, path, pixel_limit)
    cut = check_chunks(data, path) if data.startswith(PNG) else ''
    factor = _factor((image.height, image.width), decode_to) if image.format == 'JPEG' else 1
    pixels, left = (None, '') if fast is None or (factor > 1 and not fast.divides) else _with(fast, data, image, factor)
    if pixels is None:
        if factor > 1:
            image.draft(None, (image.width // factor, image.height // factor))
        pixels = _with_pillow(image, path)
    if cut:  # Pillow and OpenCV decode it, where what is left has all rows
        raise BadImage(path, f'cannot be decoded: it is truncated in its {cut} chunk')
    found = _fallbacks.get()
    if left and found is not None:
        count, first = found.get(left, (0, path))
        found[left] = count + 1, first
    return _upright(pixels, orientation_of(image))


def file_bytes(path: str, pixel_limit: int = PIXEL_LIMIT) -> bytes:
    """The content of an image file, at a path or an address; ``BadImage`` if it cannot be read."""
    try:
        return (read_remote if '://' in path else read_bytes)(path, LARGEST + 16 * pixel_limit)
    except OSError as error:
        raise BadImage(path, f'cannot be read: {error.strerror or error}') from error
    except ValueError as error:  # too many bytes, or a null byte in the name
        raise BadImage(path, f'cannot be read: {error}') from error


def size_of_file(path: str, pixel_limit: int = PIXEL_LIMIT) -> tuple[int, int]:
    """(height, width) of an upright image file, at a path or an address; of a local one only the header is read."""
    if '://' in path:
        image = open_image(file_bytes(path, pixel_limit), path, pixel_limit)
        return _upright_size(image)
    try:
        with open_regular(path) as file:
            return _upright_size(open_image(file, path, pixel_limit))
    except (OSError, ValueError) as error:
        raise BadImage(path, f'cannot be read: {error}') from error


def _upright_size(image: Image.Image) -> tuple[int, int]:
    return (image.width, image.height) if orientation_of(image) >= 5 else (image.height, image.width)


def pixels_of(image: Image.Image, name: str = '<image>') -> np.ndarray:
    """An opened Pillow image to (H, W, 3) uint8 RGB, as ``decode_image`` does it with a file. Do not write to the array."""
    if image.width * image.height > PIXEL_LIMIT:
        raise BadImage(name, f'has {image.width} x {image.height} pixels, over the limit of {PIXEL_LIMIT}')
    if getattr(image, 'format', None) != 'MPO' and getattr(image, 'is_animated', False):
        raise BadImage(name, 'holds more than one frame (animated or several pages)')
    return _upright(_with_pillow(image, name), orientation_of(image))


def open_image(data: bytes | IO[bytes], path: str, pixel_limit: int) -> ImageFile.ImageFile:
    """Read only the header, and check it before memory for the pixels is allocated."""
    try:
        with _pillow_allows(pixel_limit):
            image = Image.open(io.BytesIO(data) if isinstance(data, bytes) else data, formats=FORMATS)
        moving = image.format != 'MPO' and getattr(image, 'is_animated', False)  # MPO: a photograph with a second view of it
    except UnidentifiedImageError as error:
        begins = f' (it begins with {data[:12]!r})' if isinstance(data, bytes) else ''
        raise BadImage(path, f'is not an image, or its header is damaged{begins}') from error
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


def check_chunks(data: bytes, path: str) -> str:
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


def load_pixels(image: Image.Image, path: str) -> None:
    """Decode the pixels, in the mode of the file."""
    try:
        image.load()
    except MemoryError:
        raise
    except Exception as error:  # on damaged data Pillow's decoders raise exceptions of many types
        raise BadImage(path, f'cannot be decoded: {_words(error)}') from error


def _with_pillow(image: Image.Image, path: str) -> np.ndarray:
    try:
        load_pixels(image, path)
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
    """16 bits to 8, which takes 65535 to 255. (H, W) -> (H, W, 3)."""
    if image.mode == 'F':
        raise BadImage(path, 'has floating-point pixels of unknown range')
    values = np.asarray(image)
    if values.min() < 0 or values.max() > 65535:
        raise BadImage(path, f'has values from {values.min()} to {values.max()}, beyond 16 bits')
    return np.repeat(to_8_bits(values)[:, :, None], 3, axis=2)


def to_8_bits(values: np.ndarray) -> np.ndarray:
    """Whole numbers from 0 to 65535 -> uint8, by round(v / 257)."""
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)  # 257 is odd: no ties


def _factor(size: tuple[int, int], decode_to: int | None) -> int:
    """The largest division of the sides of a JPEG file that leaves them ``decode_to`` pixels or more."""
    if decode_to is None:
        return 1
    return next((factor for factor in (8, 4, 2) if min(size) // factor >= decode_to), 1)


def _divided(size: tuple[int, int], factor: int) -> tuple[int, int]:
    return -(-size[0] // factor), -(-size[1] // factor)


def _with(fast: Decoder, data: bytes, image: ImageFile.ImageFile, factor: int) -> tuple[np.ndarray | None, str]:
    """Decode a complete plain JPEG by a fast decoder. Other files, and those it refuses: None, and the kind of file."""
    if image.format != 'JPEG':
        return None, f'{image.format} files'
    if image.mode not in ('RGB', 'L'):
        return None, f'{image.mode} JPEG files'
    if not data.endswith(END_OF_JPEG):
        return None, 'JPEG files that do not end with the end marker'
    size = _divided((image.height, image.width), factor)
    try:
        pixels = fast.decode(data, size, factor)
    except Refused:
        return None, f'JPEG files that {fast.name} refuses'
    if pixels.shape != (*size, 3):
        return None, f'JPEG files that {fast.name} decodes to another size'
    return pixels, ''


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
