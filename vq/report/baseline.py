"""A baseline with the same number of tokens and codes: k-means on raw patches of pixels."""

from __future__ import annotations

import dataclasses
import time

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]  # (N, H, W, 3)


@dataclasses.dataclass
class PatchKMeans:
    """Codes are whole patches: an image is split into squares of ``patch`` pixels, each replaced by its nearest centre."""

    centres: NDArray[np.float32]  # (K, patch * patch * 3)
    patch: int
    seconds: float  # duration of the fit

    @property
    def patches(self) -> Pixels:
        """The codes as pictures (K, patch, patch, 3)."""
        return to_pixels(self.centres).reshape(-1, self.patch, self.patch, 3)

    def tokenize(self, images: Pixels) -> NDArray[np.int64]:
        """(N, H, W, 3) -> tokens (N, h, w)."""
        rows = cut(images, self.patch)
        shape = (len(images), images.shape[1] // self.patch, images.shape[2] // self.patch)
        return np.concatenate(
            [nearest(part, self.centres) for part in np.array_split(rows, max(1, len(rows) // 4096))]
        ).reshape(shape)

    def detokenize(self, tokens: NDArray[np.int64]) -> Pixels:
        """Tokens (N, h, w) -> (N, H, W, 3)."""
        return join(to_pixels(self.centres)[tokens.reshape(-1)], tokens.shape, self.patch)


def fit(images: Pixels, codes: int, patch: int, seed: int, iterations: int = 300) -> PatchKMeans:
    """Lloyd's k-means with one k-means++ initialization from ``seed`` (scikit-learn), on all patches of the images."""
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    started = time.perf_counter()
    rows = cut(images, patch)
    with threadpool_limits(1):  # the products are small: two threads would mostly wait for each other
        found = KMeans(codes, n_init=1, max_iter=iterations, random_state=seed).fit(rows)
    return PatchKMeans(found.cluster_centers_.astype(np.float32), patch, time.perf_counter() - started)


def cut(images: Pixels, patch: int) -> NDArray[np.float32]:
    """(N, H, W, 3) -> patches (N * h * w, patch * patch * 3), row by row."""
    count, height, width, channels = images.shape
    if height % patch or width % patch:
        raise ValueError(f'images of {height} x {width} do not divide into patches of {patch}')
    split = images.reshape(count, height // patch, patch, width // patch, patch, channels).transpose(0, 1, 3, 2, 4, 5)
    return split.reshape(-1, patch * patch * channels).astype(np.float32)


def join(patches: NDArray[np.uint8], shape: tuple[int, ...], patch: int) -> Pixels:
    """The inverse of ``cut`` for tokens of ``shape`` (N, h, w)."""
    count, rows, columns = shape
    split = patches.reshape(count, rows, columns, patch, patch, 3).transpose(0, 1, 3, 2, 4, 5)
    return split.reshape(count, rows * patch, columns * patch, 3)


def nearest(rows: NDArray[np.float32], centres: NDArray[np.float32]) -> NDArray[np.int64]:
    """argmin over k of |x - c_k|^2 = |x|^2 - 2 x c_k + |c_k|^2; |x|^2 does not depend on k."""
    found: NDArray[np.int64] = np.argmin((centres**2).sum(1) - 2 * (rows @ centres.T), axis=1)
    return found


def to_pixels(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Rounded to the nearest of 0 to 255."""
    return np.rint(values).clip(0, 255).astype(np.uint8)
