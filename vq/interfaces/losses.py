"""Losses, discriminators, and what weighs or penalises them."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn


class Loss(nn.Module):
    """A named term; its weight is applied by ``Losses``."""

    weight: float

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        raise NotImplementedError


class Discriminator(nn.Module):
    """image (B, 3, H, W) float in [-1, 1] -> logits, one per image or per patch: high for real images. Real and
    reconstructed images are passed in separate calls, so that the two batches do not influence each other."""

    compiles = 'forward'  # the method that a strategy with ``compile`` compiles by default; '' for none


class DiscriminatorPenalty(nn.Module):
    """A regulariser of the discriminator, added every ``interval`` steps with its weight multiplied by the interval."""

    weight: float
    interval: int = 1
    second_order: bool = False  # whether it needs second derivatives

    def forward(self, discriminator: Discriminator, real: Tensor, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """``real`` are the images (B, 3, H, W), detached."""
        raise NotImplementedError

    def update(self, ok: Tensor | None = None) -> None:
        """Called once per step: update state without gradients, unless ``ok`` (a bool on the device) is false."""


class GeneratorWeight(nn.Module):
    """The weight of the adversarial term relative to the pixel losses."""

    by_gradients: bool = False  # whether ``forward`` needs gradients at the decoder's last layer
    losses: Sequence[str] | None = None  # the pixel losses in the numerator, None for all

    def forward(self, gradients: Tensor | None) -> Tensor | float:
        """``gradients`` (2, *weight.shape): of the pixel losses and of the adversarial term, averaged over ranks."""
        raise NotImplementedError
