"""Noise on latents, in training: a decoder that has seen it forgives the errors of a generator."""

from __future__ import annotations

import torch
from torch import Tensor

from vq.core.errors import ConfigError
from vq.interfaces import Coding, Perturbation, Quantizer
from vq.nn.precision import no_autocast
from vq.registries import VQPerturbationRegistry


def per_image(z: Tensor) -> Tensor:
    """Uniform numbers in [0, 1), one for each image, (B, 1, ...) to multiply z with."""
    return torch.rand(len(z), *[1] * (z.ndim - 1), device=z.device)


def _normal(z: Tensor) -> Tensor:
    return torch.randn(z.shape, device=z.device)


@VQPerturbationRegistry.register_()
class GaussianNoise(Perturbation):
    """z + s e,  s uniform in (0, tau) for each image,  e standard normal (representation autoencoders, RAE, 2025)."""

    def __init__(self, tau: float = 0.8) -> None:
        super().__init__()
        if not tau >= 0:
            raise ConfigError(f'tau is {tau}', 'Give the largest deviation of the noise, from 0 up.')
        self.tau = float(tau)

    def forward(self, z: Tensor, coding: Coding | None = None) -> Tensor:
        if not self.training:
            return z
        return (z.float() + self.tau * per_image(z) * _normal(z)).to(z.dtype)


@VQPerturbationRegistry.register_()
class GaussianMix(Perturbation):
    """(1 - g) z + g d e,  g uniform in (0, gamma) for each image,  e standard normal,  d the ``deviation`` of the noise.

    (l-DeTok, Yang et al. 2025, which takes gamma 1 and a deviation of 3.)
    """

    def __init__(self, gamma: float = 1.0, deviation: float = 1.0) -> None:
        super().__init__()
        if not 0 <= gamma <= 1 or not deviation >= 0:
            raise ConfigError(
                f'gamma is {gamma} and deviation {deviation}',
                'gamma is the largest share of the noise, from 0 to 1; its deviation is from 0 up.',
            )
        self.gamma, self.deviation = float(gamma), float(deviation)

    def forward(self, z: Tensor, coding: Coding | None = None) -> Tensor:
        if not self.training:
            return z
        share = self.gamma * per_image(z)
        return ((1 - share) * z.float() + share * self.deviation * _normal(z)).to(z.dtype)


@VQPerturbationRegistry.register_()
class BoundedNoise(Perturbation):
    """z + w u,  u uniform in (-1/2, 1/2) for each number,  w the ``level``: the error of rounding to levels w apart.

    Without ``level`` the noise stands in place of the rounding of a FiniteScalarQuantizer: z is v + w u, where v are its codes
    before they are rounded, and w is the distance of its levels. So the encoder gets the gradient of what the decoder sees, as
    in perturbation in place of quantization (FSP). Evaluation rounds.

    ``share``: of the images; the others are left alone.
    """

    def __init__(self, level: float | None = None, share: float = 1.0) -> None:
        super().__init__()
        if (level is not None and not level > 0) or not 0 <= share <= 1:
            raise ConfigError(
                f'level is {level} and share {share}', 'Give the distance of two levels, above 0, and a share from 0 to 1.'
            )
        self.level, self.share = level, float(share)

    def check(self, channels: int, quantizer: Quantizer | None) -> None:
        if self.level is None and (quantizer is None or not quantizer.rounds):
            raise ConfigError(
                'BoundedNoise knows no distance of levels: the tokenizer has no quantizer that rounds to levels',
                'Give it one, such as level=0.5.',
            )

    def forward(self, z: Tensor, coding: Coding | None = None) -> Tensor:
        if not self.training:
            return z
        noise = torch.rand(z.shape, device=z.device) - 0.5
        if self.level is not None:
            made = z.float() + self.level * noise
        else:
            assert coding is not None and coding.quantizer is not None
            with no_autocast(z.device):
                v, width = coding.quantizer.unrounded(coding.features.movedim(1, -1))
                made = (v + width * noise.movedim(1, -1)).movedim(-1, 1)
        return torch.where(per_image(z) < self.share, made.to(z.dtype), z)
