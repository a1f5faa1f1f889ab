"""How close reconstructions are to their images, pixel by pixel: both rounded to 8 bits, in the range 0 to 1."""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

from vq.core.errors import UserError
from vq.metrics.samples import ImageMetric
from vq.registries import VQMetricRegistry

PSNR_CAP = 100.0


@VQMetricRegistry.register_()
class L1Metric(ImageMetric):
    """'l1': mean over images of mean |x - y|."""

    name = 'l1'

    def measure(self, image: Tensor, reconstruction: Tensor) -> tuple[Tensor, float]:
        difference = (image.int() - reconstruction.int()).abs()
        return difference.flatten(1).sum(1, dtype=torch.int64), 1 / (255 * image.shape[1:].numel())


@VQMetricRegistry.register_()
class MSEMetric(ImageMetric):
    """'mse': mean over images of mean (x - y)^2."""

    name = 'mse'

    def measure(self, image: Tensor, reconstruction: Tensor) -> tuple[Tensor, float]:
        difference = (image.int() - reconstruction.int()).square()
        return difference.flatten(1).sum(1, dtype=torch.int64), 1 / (255**2 * image.shape[1:].numel())


@VQMetricRegistry.register_()
class PSNRMetric(MSEMetric):
    """'psnr': mean over images of -10 log10 mse, in dB; an image without any error counts as 100 dB.

    The mean of the logarithms, as papers report it, is above the logarithm of the mean.
    """

    name = 'psnr'

    def finish(self, figures: Tensor) -> Tensor:
        return (-10 * torch.log10(figures)).clamp_max(PSNR_CAP)


@VQMetricRegistry.register_()
class SSIMMetric(ImageMetric):
    """'ssim': mean over images of SSIM (Wang et al. 2004): Gaussian window 11 x 11, sigma 1.5, data range 1, per channel.

    All windows count, those at the border with reflected pixels: the figure of torchmetrics.
    """

    name = 'ssim'

    def measure(self, image: Tensor, reconstruction: Tensor) -> tuple[Tensor, float]:
        height, width = image.shape[-2:]
        if min(height, width) <= SIZE // 2:
            raise UserError(
                f'SSIM looks at windows of {SIZE} x {SIZE} pixels, and images have {height} x {width}',
                'Leave SSIMMetric out of the metrics, or use larger images.',
            )
        similarity = ssim_map(image, reconstruction).flatten(1)
        # summed as whole numbers: sums of floats depend on how a device cuts a batch
        return (similarity * FRACTION).round().long().sum(1), 1 / (FRACTION * similarity.shape[1])


SIZE = 11
FRACTION = 2**30
SHARPNESS = 2**17  # windows are whole numbers that sum to this: all products below are then exact in float64


def window() -> list[int]:
    """The Gaussian of 11 taps as whole numbers that sum to ``SHARPNESS``."""
    taps = [math.exp(-((offset - SIZE // 2) ** 2) / (2 * 1.5**2)) for offset in range(SIZE)]
    whole = [round(tap / sum(taps) * SHARPNESS) for tap in taps]
    whole[SIZE // 2] += SHARPNESS - sum(whole)
    return whole


@functools.cache
def blur_matrix(length: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """(length, length): row i blurs around i, with pixels outside reflected at the border.

    Made on the host: under XLA the first batch would otherwise be another program than the first batch of a second pass.
    """
    offsets = torch.arange(SIZE) - SIZE // 2
    index = (torch.arange(length)[:, None] + offsets).abs()  # (length, SIZE)
    index = torch.where(index < length, index, 2 * (length - 1) - index)
    taps = torch.tensor(window(), dtype=dtype).expand(length, SIZE)
    return torch.zeros(length, length, dtype=dtype).scatter_add_(1, index, taps).to(device)


def ssim_map(x: Tensor, y: Tensor) -> Tensor:
    """(2 mx my + c1)(2 sxy + c2) / ((mx^2 + my^2 + c1)(sx^2 + sy^2 + c2)) for uint8 (B, C, H, W).

    In units of grey levels. The blurs are products of whole numbers below 2^53, so they are the same bits in any order of
    summation, on any device that has float64 (fp32 on MPS, where that does not hold).
    """
    dtype = torch.float32 if x.device.type == 'mps' else torch.float64
    x, y = x.to(dtype), y.to(dtype)
    vertical = blur_matrix(x.shape[-2], x.device, dtype)
    horizontal = blur_matrix(x.shape[-1], x.device, dtype).T
    maps = torch.stack([x, y, x.square() + y.square(), x * y])  # whole numbers up to 2^17
    mean_x, mean_y, squares, product = vertical @ maps @ horizontal / SHARPNESS**2
    mean_square, mean_product = mean_x.square() + mean_y.square(), mean_x * mean_y
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    similar: Tensor = (2 * mean_product + c1) * (2 * (product - mean_product) + c2)
    ratio: Tensor = similar / ((mean_square + c1) * (squares - mean_square + c2))
    return ratio
