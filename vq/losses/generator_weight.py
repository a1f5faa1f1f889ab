"""The weight of the adversarial term relative to the image losses."""

from __future__ import annotations

import torch
from torch import Tensor

from vq.core.errors import ConfigError
from vq.interfaces import GeneratorWeight
from vq.registries import VQGeneratorWeightRegistry


@VQGeneratorWeightRegistry.register_()
class FixedWeight(GeneratorWeight):
    """The same weight in every step."""

    def __init__(self, value: float = 0.5) -> None:
        super().__init__()
        self.value = value

    def forward(self, gradients: Tensor | None) -> Tensor | float:
        return self.value


@VQGeneratorWeightRegistry.register_()
class AdaptiveWeight(GeneratorWeight):
    """gain * min(|grad_W image losses| / (|grad_W adversarial| + eps), limit),  W the last layer of the decoder.

    (Esser et al. 2021, eq. 7.) Both gradients are averaged over ranks first, so the weight is the same on every rank.

    - ``losses``: names of the image losses in the numerator, e.g. ('lpips',); by default all of them.
    """

    by_gradients = True

    def __init__(
        self, gain: float = 0.8, limit: float = 1e4, eps: float = 1e-4, losses: tuple[str, ...] | None = None
    ) -> None:
        super().__init__()
        if limit <= 0 or eps < 0:
            raise ConfigError(f'AdaptiveWeight has limit {limit} and eps {eps}', 'Give a positive limit, and eps from 0 up.')
        self.gain, self.limit, self.eps, self.losses = gain, limit, eps, losses

    def forward(self, gradients: Tensor | None) -> Tensor | float:
        assert gradients is not None
        images, adversarial = torch.linalg.vector_norm(gradients.float().flatten(1), dim=1)
        return self.gain * torch.clamp(images / (adversarial + self.eps), 0.0, self.limit)
