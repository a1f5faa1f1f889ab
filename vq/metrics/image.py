"""Pixel-wise distances of reconstructions from their images: both rounded to 8 bits, in the range 0 to 1."""

from __future__ import annotations

import torch
from torch import Tensor

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
class L2Metric(MSEMetric):
    """'l2': mean over images of the root of mean (x - y)^2."""

    name = 'l2'

    def convert(self, figures: Tensor) -> Tensor:
        return figures.sqrt()


@VQMetricRegistry.register_()
class PSNRMetric(MSEMetric):
    """'psnr': mean over images of -10 log10 mse, in dB. An image without error counts as 100 dB.

    The mean of logarithms, as papers report it, is above the logarithm of the mean mse.
    """

    name = 'psnr'

    def convert(self, figures: Tensor) -> Tensor:
        return (-10 * torch.log10(figures)).clamp_max(PSNR_CAP)
