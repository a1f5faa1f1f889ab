"""LPIPS, the learned perceptual distance of reconstructions from their images."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from vq.core.records import to_float
from vq.losses.perceptual import LPIPSLoss
from vq.metrics.samples import ImageMetric
from vq.nn.precision import no_autocast
from vq.registries import VQMetricRegistry

FRACTION = 2**30


@VQMetricRegistry.register_()
class LPIPSMetric(ImageMetric):
    """'lpips_vgg', or with the name of another network: mean over images of LPIPS 0.1 (see ``LPIPSLoss``), in fp32.

    Images and reconstructions are rounded to 8 bits and are not resized. Figures of different networks cannot be compared.
    Papers that do not name the network mostly mean 'alex' (the package's default) or 'vgg' (the network of the loss).
    """

    network: LPIPSLoss

    def __init__(
        self,
        net: Literal['vgg', 'alex', 'squeeze'] = 'vgg',
        backbone_file: str | None = None,
        heads_file: str | None = None,
    ) -> None:
        super().__init__()
        self.name = f'lpips_{net}'
        self.network: LPIPSLoss = LPIPSLoss(net=net, backbone_file=backbone_file, heads_file=heads_file)

    @torch.no_grad()
    def measure(self, image: Tensor, reconstruction: Tensor) -> tuple[Tensor, float]:
        with no_autocast(image.device):
            distance = self.network.distance(to_float(reconstruction), to_float(image))
        return (distance.double() * FRACTION).round().long(), 1 / FRACTION
