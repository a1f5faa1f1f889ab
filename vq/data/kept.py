"""Images that are shrunk when they are first read, and stay in memory.

A photograph of a phone takes a tenth of a second to decode, for a few thousand pixels that a small model sees of it. A short
training reads each image hundreds of times.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from vq.data.geometry import covering_size
from vq.data.pixels import resize

LIMIT = 512 * 2**20  # bytes that a process keeps; what does not fit is decoded every time


class Kept:
    """Images (H, W, 3) uint8 by number, none with a short side above ``short_side``.

    An image is shrunk whether it is kept or not, so what a process has read before makes no difference.
    """

    def __init__(self, short_side: int, limit: int = LIMIT) -> None:
        self.short_side, self.limit = short_side, limit
        self._images: dict[int, np.ndarray] = {}
        self._bytes = 0

    def get(self, index: int, read: Callable[[int], np.ndarray]) -> np.ndarray:
        """The image ``index``; ``read`` decodes it if it is not here."""
        found = self._images.get(index)
        if found is None:
            found = self._shrunk(read(index))
            if self._bytes + found.nbytes <= self.limit:
                self._images[index] = found
                self._bytes += found.nbytes
        return found

    def _shrunk(self, image: np.ndarray) -> np.ndarray:
        height, width = image.shape[:2]
        if min(height, width) <= self.short_side:
            return image
        return resize(image, *covering_size(height, width, self.short_side, self.short_side))
