"""Images that were uploaded: checked by their header, kept in memory, handed to the worker with the jobs that name them."""

from __future__ import annotations

import collections
import secrets
import threading

from vq.core.errors import UserError
from vq.data.decode import BadImage, open_image

LARGEST = 10_000_000  # bytes
SIDE = 4096  # pixels
KEPT = 12
HEADER = 2**34  # pixels that a header may name: only the header is read here, and the sides are compared below


class Uploads:
    """The last ``KEPT`` images, by a name that cannot be guessed."""

    def __init__(self) -> None:
        self._images: collections.OrderedDict[str, bytes] = collections.OrderedDict()
        self._lock = threading.Lock()

    def add(self, data: bytes) -> tuple[str, int, int]:
        """(name, width, height). An error if it is no image, or too large. Pixels are decoded by the worker."""
        if len(data) > LARGEST:
            raise too_large(len(data))
        if not data:
            raise UserError('the file is empty', 'Take another file.')
        try:
            image = open_image(data, '', HEADER)
        except BadImage as error:
            raise UserError(f'the file {error.reason}', 'Take a PNG, JPEG, WebP, BMP, GIF, TIFF or PPM file.') from error
        if max(image.size) > SIDE:
            raise UserError(
                f'the image is {image.width} x {image.height} pixels, and a side can have {SIDE}', 'Make it smaller first.'
            )
        name = secrets.token_urlsafe(9)
        with self._lock:
            self._images[name] = data
            while len(self._images) > KEPT:
                self._images.popitem(last=False)
        return name, image.width, image.height

    def data(self, name: object) -> bytes:
        with self._lock:
            found = self._images.get(name) if isinstance(name, str) else None
        if found is None:
            raise UserError('the image is not here any more', 'Choose the file again.')
        return found


def too_large(size: int) -> UserError:
    return UserError(f'the file has {size / 1e6:.1f} MB, and {LARGEST / 1e6:.0f} MB are taken', 'Make it smaller first.')
