"""The feature network of dry runs, in place of Inception, which takes a minute for 180 images on a CPU."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vq.core.errors import UserError
from vq.core.random import torch_stream
from vq.core.records import to_float
from vq.interfaces import FeatureNetwork, Features
from vq.nn.precision import no_autocast
from vq.registries import VQFeatureNetworkRegistry

SIDE = 32


@VQFeatureNetworkRegistry.register_()
class SmallFeatures(FeatureNetwork):
    """uint8 images -> 16 pooled features, 10 logits, 7 x 4 x 4 spatial features, from two convolutions with fixed noise.

    The noise is the same in every process, so that a dry run can compare with the statistics of another. Figures of it mean
    nothing, and outside of dry runs it is refused.
    """

    dimension = 16

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 16, 4, 4), nn.Conv2d(16, 16, 2, 2)
        self.classes = nn.Linear(16, 10, bias=False)
        noise = torch_stream('small features')
        for parameter in self.parameters():
            if not parameter.is_meta:
                parameter.data.copy_(torch.randn(parameter.shape, generator=noise) / parameter[0].numel() ** 0.5)
        self.requires_grad_(False)
        self.eval()

    @property
    def description(self) -> dict[str, str]:
        return {'network': 'SmallFeatures', 'preprocessing': f'resized to {SIDE} x {SIDE}', 'precision': 'fp32'}

    @torch.no_grad()
    def forward(self, image: Tensor) -> Features:
        with no_autocast(image.device):
            x = F.interpolate(to_float(image), (SIDE, SIDE), mode='bilinear', antialias=True)
            maps = F.gelu(self.second(F.gelu(self.first(x))))  # (B, 16, 4, 4)
            pooled = maps.mean((2, 3))
            return Features(pooled, self.classes(pooled), maps[:, :7].flatten(1))

    def pretrained_files(self) -> list[Path]:
        return []

    def load_pretrained(self) -> None:
        raise UserError('SmallFeatures has no weights: it is the feature network of dry runs', 'Give FIDInception.')
