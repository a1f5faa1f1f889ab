"""Parts of latents that are taken away in training: cells, trailing channels, trailing tokens."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from vq.core.errors import ConfigError
from vq.interfaces import Coding, Perturbation, Quantizer
from vq.nn.perturbations.noise import per_image
from vq.registries import VQPerturbationRegistry


def _vector(name: str, learned: bool, channels: int | None) -> nn.Parameter | None:
    """What takes the place of cells: a learned vector (C,), which starts at zero; None: zeros."""
    if learned and channels is None:
        raise ConfigError(f'{name} learns a vector of unknown length', 'Give its channels: those of the latent.')
    return nn.Parameter(torch.zeros(channels)) if learned and channels is not None else None


def _check_vector(name: str, vector: Tensor | None, channels: int) -> None:
    if vector is not None and len(vector) != channels:
        raise ConfigError(
            f'{name} has a vector of {len(vector)} channels, and the latent has {channels}', 'Leave its channels out.'
        )


def replaced(z: Tensor, mask: Tensor, vector: Tensor | None) -> Tensor:
    """z (B, C, *cells) with the cells of ``mask`` (B, L), in row-major order, replaced by a vector (C,) or zeros."""
    there = mask.view(len(z), 1, *z.shape[2:])
    if vector is None:
        return z.masked_fill(there, 0)
    return torch.where(there, vector.to(z.dtype).view(-1, *[1] * (z.ndim - 2)), z)


def random_ranks(z: Tensor) -> Tensor:
    """A random order of the cells of each image: the numbers 0 to L - 1 in (B, L)."""
    return torch.rand(len(z), z[0, 0].numel(), device=z.device).argsort(1)


@VQPerturbationRegistry.register_()
class TokenMasking(Perturbation):
    """A share r of the cells of each image becomes zero or a learned vector,  r uniform in (low, high), at least 0.

    (MAETok, Chen et al. 2025, masks 0.4 to 0.6; l-DeTok, Yang et al. 2025, -0.1 to 0.7. Both mask the input of the encoder;
    here it is the input of the decoder.) The number of cells is r L, rounded.
    """

    def __init__(self, low: float = 0.4, high: float = 0.6, learned: bool = True, channels: int | None = None) -> None:
        super().__init__()
        if not low <= high <= 1 or high < 0:
            raise ConfigError(
                f'low is {low} and high {high}', 'Give the range of the share: low at most high, high in 0 to 1.'
            )
        self.low, self.high = float(low), float(high)
        self.vector = _vector(type(self).__name__, learned, channels)

    def check(self, channels: int, quantizer: Quantizer | None) -> None:
        _check_vector(type(self).__name__, self.vector, channels)

    def forward(self, z: Tensor, coding: Coding | None = None) -> Tensor:
        if not self.training:
            return z
        ranks = random_ranks(z)
        share = self.low + (self.high - self.low) * torch.rand(len(z), 1, device=z.device)
        return replaced(z, ranks + 0.5 < share * ranks.shape[1], self.vector)


@VQPerturbationRegistry.register_()
class ChannelDrop(Perturbation):
    """The first c channels stay, the others become zero;  c uniform in least, least + step, ..., C for each image.

    (DC-AE 1.5, Chen et al. 2025: structured latents. The first channels learn the coarse content.)
    """

    def __init__(self, least: int, step: int = 1) -> None:
        super().__init__()
        if least < 1 or step < 1:
            raise ConfigError(f'least is {least} and step {step}', 'Give numbers of channels from 1 up.')
        self.least, self.step = least, step

    def check(self, channels: int, quantizer: Quantizer | None) -> None:
        if self.least > channels or (channels - self.least) % self.step:
            raise ConfigError(
                f'ChannelDrop keeps {self.least} channels and {self.step} more at a time, and the latent has {channels}',
                'Choose least and step so that least plus some steps make all channels.',
            )

    def forward(self, z: Tensor, coding: Coding | None = None) -> Tensor:
        if not self.training:
            return z
        choices = (z.shape[1] - self.least) // self.step + 1
        kept = self.least + self.step * (per_image(z) * choices).floor()  # (B, 1, ...)
        channel = torch.arange(z.shape[1], device=z.device).view(-1, *[1] * (z.ndim - 2))
        return z.masked_fill(channel >= kept, 0)


@VQPerturbationRegistry.register_()
class TokenDrop(Perturbation):
    """The first k of L cells, in row-major order, stay; the others become zero or a learned vector: nested dropout.

    (FlexTok, Bachmann et al. 2025; Rippel et al. 2014.) For each image k is uniform in ``least`` to L, or among L and the
    powers of two from ``least`` up to it.
    """

    def __init__(
        self,
        least: int = 1,
        among: Literal['all', 'powers'] = 'powers',
        learned: bool = True,
        channels: int | None = None,
    ) -> None:
        super().__init__()
        if least < 1 or among not in ('all', 'powers'):
            raise ConfigError(f"least is {least} and among '{among}'", "Give a number from 1 up, and 'all' or 'powers'.")
        self.least, self.among = least, among
        self.vector = _vector(type(self).__name__, learned, channels)

    def check(self, channels: int, quantizer: Quantizer | None) -> None:
        _check_vector(type(self).__name__, self.vector, channels)

    def forward(self, z: Tensor, coding: Coding | None = None) -> Tensor:
        if not self.training:
            return z
        count = z[0, 0].numel()
        first, choices = self._choices(count)
        drawn = (torch.rand(len(z), 1, device=z.device) * choices).floor()
        kept = first + drawn if self.among == 'all' else torch.exp2(first + drawn).round().clamp_max(count)  # (B, 1)
        return replaced(z, torch.arange(count, device=z.device) >= kept, self.vector)

    def _choices(self, count: int) -> tuple[int, int]:
        """The first number of cells, or its exponent, and how many there are to choose among."""
        if self.least > count:
            raise ConfigError(f'TokenDrop keeps at least {self.least} of {count} cells', 'Choose a smaller least.')
        if self.among == 'all':
            return self.least, count - self.least + 1
        first = (self.least - 1).bit_length()
        return first, max(0, (count - 1).bit_length() - first) + 1
