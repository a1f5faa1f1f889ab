"""Images and damaged files shared by data tests."""

from __future__ import annotations

import functools
import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.io.remote_places import bucket_server, network, there  # noqa: F401

MakePicture = Callable[..., np.ndarray]


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A smooth colour image (height, width, 3), suited to JPEG, and without symmetry."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def encoded(image: np.ndarray | Image.Image, kind: str, **settings: object) -> bytes:
    buffer = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(buffer, kind, **settings)
    return buffer.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG whose header has any size, with almost no data."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack('>I', len(content)) + name + content + struct.pack('>I', zlib.crc32(name + content))

    header = struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0)
    return b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', header) + chunk(b'IDAT', zlib.compress(b'\0' * 1000)) + chunk(b'IEND', b'')


@functools.cache
def bad_contents() -> dict[str, tuple[bytes, str]]:
    """File name -> (content, a word of the expected reason)."""
    plain, other = picture(120, 160), Image.fromarray(picture(120, 160, seed=1))
    moving = {'save_all': True, 'append_images': [other], 'duration': 100}
    jpeg, png = encoded(plain, 'JPEG'), encoded(plain, 'PNG')
    return {
        'empty.png': (b'', 'zero bytes'),
        'cut.jpg': (jpeg[:-500], 'truncated'),
        'zero_filled.jpg': (jpeg[:-500] + bytes(500), 'truncated'),
        'cut.png': (png[: len(png) // 2], 'cannot be decoded'),
        'header.png': (png[:20], 'header'),
        'text.jpg': (b'<html>404 not found</html>', 'not an image'),
        'moving.webp': (encoded(plain, 'WEBP', **moving), 'more than one frame'),
        'apng.png': (encoded(plain, 'PNG', **moving), 'more than one frame'),
        'gif.png': (encoded(Image.fromarray(plain).convert('P'), 'GIF', **moving), 'more than one frame'),
        'pages.png': (encoded(plain, 'TIFF', save_all=True, append_images=[other]), 'more than one frame'),
        'bomb.png': (png_header(60_000, 60_000), 'bomb'),
        'large.png': (png_header(10_000, 10_000), 'over the limit'),
        'float.png': (encoded(Image.fromarray(np.zeros((4, 4), np.float32)), 'TIFF'), 'floating-point'),
        'deep.png': (encoded(Image.fromarray(np.full((4, 4), 70_000, np.int32)), 'TIFF'), 'beyond 16 bits'),
    }


@pytest.fixture
def make_picture() -> MakePicture:
    return picture


@pytest.fixture
def encode() -> Callable[..., bytes]:
    return encoded


@pytest.fixture
def make_png_header() -> Callable[[int, int], bytes]:
    return png_header


@pytest.fixture(params=sorted(bad_contents()))
def bad_file(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, str]:
    """Each kind of bad file in turn, with a word of the expected reason."""
    content, word = bad_contents()[request.param]
    path = tmp_path / request.param
    path.write_bytes(content)
    return path, word
