"""Differentiable augmentation: a discriminator that sees real and reconstructed images only after random changes."""

from __future__ import annotations

import torch
from torch import Tensor

from vq.core.errors import ConfigError
from vq.interfaces import Discriminator
from vq.registries import VQDiscriminatorRegistry


@VQDiscriminatorRegistry.register_()
class AugmentedDiscriminator(Discriminator):
    """D(T(x)), T drawn for each image (Zhao et al. 2020, DiffAugment). Gradients reach the images through T.

    A discriminator that always saw unchanged images could learn the training images by heart; one that saw only real images
    changed would teach the changes to the decoder. In eval mode, and so in the R1 penalty, T is the identity.

        x <- x + b,  mean_c(x) + s (x - mean_c(x)),  mean_chw(x) + k (x - mean_chw(x)),  shifted,  with a hole

    b is uniform in (-brightness, brightness), s in (1 - saturation, 1 + saturation), k in (1 - contrast, 1 + contrast).

    - ``translation``: the largest shift, in widths of the image; what is shifted in is 0, a mean gray.
    - ``cutout``: side of the hole, in widths of the image. Its centre is anywhere in the image; the hole is 0.
    - ``probability``: of each of colour, shift and hole, for each image. A strength of 0 leaves its change out.
    """

    compiles = ''  # the inner one is compiled: random numbers of compiled code would differ from those of plain runs

    def __init__(
        self,
        discriminator: Discriminator,
        brightness: float = 0.5,
        saturation: float = 1.0,
        contrast: float = 0.5,
        translation: float = 0.125,
        cutout: float = 0.2,
        probability: float = 1.0,
    ) -> None:
        super().__init__()
        if min(brightness, saturation, contrast) < 0 or not all(0 <= v <= 1 for v in (translation, cutout, probability)):
            raise ConfigError(
                f'AugmentedDiscriminator has brightness {brightness}, saturation {saturation}, contrast {contrast}, '
                f'translation {translation}, cutout {cutout}, probability {probability}',
                'Give strengths of colours from 0 up, and the others between 0 and 1.',
            )
        self.discriminator = discriminator
        self.brightness, self.saturation, self.contrast = brightness, saturation, contrast
        self.translation, self.cutout, self.probability = translation, cutout, probability

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.discriminator(self.augment(image) if self.training else image)
        return logits

    def augment(self, image: Tensor) -> Tensor:
        """T(image), (B, 3, H, W) fp32. The random numbers of a batch are drawn at once, by torch's generator of the device."""
        numbers = torch.rand(10, len(image), 1, 1, 1, device=image.device)
        chosen = numbers[:3] < self.probability  # colour, shift, hole
        signed = 2 * numbers[3:8] - 1
        x = image.float()
        if self.brightness or self.saturation or self.contrast:
            x = torch.where(chosen[0], self._coloured(x, signed[0], signed[1], signed[2]), x)
        if self.translation:
            x = shifted(x, chosen[1] * self.translation * signed[3:5])
        if self.cutout:
            x = x * ~(hole(x, numbers[8:10], self.cutout) & chosen[2])
        return x

    def _coloured(self, x: Tensor, brightness: Tensor, saturation: Tensor, contrast: Tensor) -> Tensor:
        if self.brightness:
            x = x + self.brightness * brightness
        if self.saturation:
            x = torch.lerp(x.mean(1, keepdim=True).expand_as(x), x, 1 + self.saturation * saturation)
        if self.contrast:
            x = torch.lerp(x.mean((1, 2, 3), keepdim=True).expand_as(x), x, 1 + self.contrast * contrast)
        return x


def shifted(x: Tensor, share: Tensor) -> Tensor:
    """Image i moved down and right by round(share[0, i] H) and round(share[1, i] W) pixels; share (2, B, 1, 1, 1).

    Rows and columns move in a circle, and those that came around are set to 0: no two pixels have one source, so the backward
    adds nothing up, and is the same in every run.
    """
    for dim, part in ((2, share[0]), (3, share[1])):
        size = x.shape[dim]
        shape = [len(x), 1, 1, 1]
        shape[dim] = size
        source = torch.arange(size, device=x.device) - (part * size).round().long().flatten(1)  # (B, size)
        index = (source % size).view(shape).expand_as(x)
        x = x.gather(dim, index) * ((source >= 0) & (source < size)).view(shape)
    return x


def hole(x: Tensor, place: Tensor, share: float) -> Tensor:
    """bool (B, 1, H, W): a rectangle of ``share`` of each side; its centre is at the share ``place`` (2, B, 1, 1, 1)."""
    inside = torch.ones(1, dtype=torch.bool, device=x.device)
    for dim, part in ((2, place[0]), (3, place[1])):
        size = x.shape[dim]
        extent = round(share * size)
        shape = [1, 1, 1, 1]
        shape[dim] = size
        first = (part * size).floor() - extent // 2
        cells = torch.arange(size, device=x.device).view(shape)
        inside = inside & (cells >= first) & (cells < first + extent)
    return inside
