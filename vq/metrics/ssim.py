"""Structural similarity with either of two common windows. Their figures differ, so each has its own name."""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

from vq.core.errors import UserError
from vq.metrics.samples import ImageMetric
from vq.registries import VQMetricRegistry

FRACTION = 2**30  # similarities are summed as integers: sums of floats depend on how a device splits a batch


class _Similarity(ImageMetric):
    """The mean of a map of SSIM (Wang et al. 2004), data range 255, over positions and channels."""

    window: int

    def measure(self, image: Tensor, reconstruction: Tensor) -> tuple[Tensor, float]:
        height, width = image.shape[-2:]
        if min(height, width) < self.smallest:
            raise UserError(
                f'SSIM needs windows of {self.window} x {self.window} pixels, and images have {height} x {width}',
                f'Leave {type(self).__name__} out of the metrics, or use larger images.',
            )
        similarity = self.similarity(image, reconstruction).flatten(1)
        return (similarity * FRACTION).round().long().sum(1), 1 / (FRACTION * similarity.shape[1])

    @property
    def smallest(self) -> int:
        """The smallest height and width of images."""
        return self.window

    def similarity(self, image: Tensor, reconstruction: Tensor) -> Tensor:
        """Two uint8 (B, C, H, W) -> (B, C, h, w)."""
        raise NotImplementedError


@VQMetricRegistry.register_()
class SSIMMetric(_Similarity):
    """'ssim': mean over images of SSIM (Wang et al. 2004): Gaussian window 11 x 11, sigma 1.5, data range 1, per channel.

    Windows at the border count too, with reflection padding: the figure of torchmetrics.
    """

    name = 'ssim'
    window = 11

    @property
    def smallest(self) -> int:
        return self.window // 2 + 1  # reflection padding is half a window wide

    def similarity(self, image: Tensor, reconstruction: Tensor) -> Tensor:
        height, width = image.shape[-2:]
        dtype = exact_dtype(image.device)
        vertical = blur_matrix(height, image.device, dtype)
        return ssim_map(image, reconstruction, vertical, blur_matrix(width, image.device, dtype), SHARPNESS)


@VQMetricRegistry.register_()
class UniformSSIMMetric(_Similarity):
    """'ssim_uniform': mean over images of SSIM with a uniform window 7 x 7, data range 1, per channel.

    Sample variances (divided by 48), and only windows within the image: the figure of scikit-image with its default
    settings, which many tokenizer projects report.
    """

    name = 'ssim_uniform'
    window = 7

    def similarity(self, image: Tensor, reconstruction: Tensor) -> Tensor:
        height, width = image.shape[-2:]
        dtype = exact_dtype(image.device)
        vertical = box_matrix(height, self.window, image.device, dtype)
        horizontal = box_matrix(width, self.window, image.device, dtype)
        return ssim_map(image, reconstruction, vertical, horizontal, self.window, self.window**2 / (self.window**2 - 1))


GAUSSIAN = 11
SHARPNESS = 2**17  # windows are integers that sum to this, so all products below are exact in float64


def exact_dtype(device: torch.device) -> torch.dtype:
    """float64, which holds the sums exactly; fp32 on MPS, which has no float64."""
    return torch.float32 if device.type == 'mps' else torch.float64


def gaussian_window() -> list[int]:
    """The Gaussian of 11 taps as integers that sum to ``SHARPNESS``."""
    taps = [math.exp(-((offset - GAUSSIAN // 2) ** 2) / (2 * 1.5**2)) for offset in range(GAUSSIAN)]
    whole = [round(tap / sum(taps) * SHARPNESS) for tap in taps]
    whole[GAUSSIAN // 2] += SHARPNESS - sum(whole)
    return whole


@functools.cache
def blur_matrix(length: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """(length, length): row i is the window around i, with reflection padding at the border.

    Made on the host: under XLA the graph of the first batch would otherwise differ from that of later passes (the result is
    cached), and be compiled again.
    """
    offsets = torch.arange(GAUSSIAN) - GAUSSIAN // 2
    index = (torch.arange(length)[:, None] + offsets).abs()  # (length, GAUSSIAN)
    index = torch.where(index < length, index, 2 * (length - 1) - index)
    taps = torch.tensor(gaussian_window(), dtype=dtype).expand(length, GAUSSIAN)
    return torch.zeros(length, length, dtype=dtype).scatter_add_(1, index, taps).to(device)


@functools.cache
def box_matrix(length: int, window: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """(length - window + 1, length): row i is the uniform window that begins at i. Made on the host, as above."""
    offset = torch.arange(length) - torch.arange(length - window + 1)[:, None]
    return ((offset >= 0) & (offset < window)).to(dtype).to(device)


def ssim_map(x: Tensor, y: Tensor, vertical: Tensor, horizontal: Tensor, weight: int, correction: float = 1.0) -> Tensor:
    """(2 mx my + c1)(2 sxy + c2) / ((mx^2 + my^2 + c1)(sx^2 + sy^2 + c2)) for uint8 (B, C, H, W) -> (B, C, h, w).

    ``vertical`` (h, H) and ``horizontal`` (w, W) have a window in each row, which sums to ``weight``. Variances are
    multiplied by ``correction``. Units are grey levels. Sums over windows are integers below 2^53, so they are bitwise
    equal in any order of summation, on any device with float64.
    """
    x, y = x.to(vertical.dtype), y.to(vertical.dtype)
    maps = torch.stack([x, y, x.square() + y.square(), x * y])  # integers up to 2^17
    mean_x, mean_y, squares, product = vertical @ maps @ horizontal.T / weight**2
    mean_square, mean_product = mean_x.square() + mean_y.square(), mean_x * mean_y
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    similar: Tensor = (2 * mean_product + c1) * (2 * correction * (product - mean_product) + c2)
    ratio: Tensor = similar / ((mean_square + c1) * (correction * (squares - mean_square) + c2))
    return ratio
