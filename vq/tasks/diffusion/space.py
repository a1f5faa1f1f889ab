"""Where diffusion happens: pixels, or the latents of a frozen tokenizer; from images to there and back."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from vq.core.errors import ConfigError
from vq.core.records import Latent, to_float
from vq.core.specs import ImageSize, LatentSpec, in_words, size_of
from vq.encoders.frozen_tokenizer import FrozenTokenizer
from vq.interfaces import LatentMap

logger = logging.getLogger('vq')


class Space:
    """x (B, 3, H, W), or a latent of a cache -> z (B, C, *cells), which the denoiser learns -> image (B, 3, H, W).

        z = m((e(x) - mean) / deviation)

    e is the tokenizer, mean and deviation are its statistics, m is the connector. Without a tokenizer z = x, in [-1, 1].
    ``sample``: z is drawn from the Gaussian of a continuous tokenizer, in place of its mean.
    """

    def __init__(
        self,
        tokenizer: FrozenTokenizer | None,
        connector: LatentMap | None = None,
        image_size: ImageSize | None = None,
        sample: bool = False,
    ) -> None:
        self.tokenizer, self.connector, self.sample = tokenizer, connector, sample
        self.given = given_of(tokenizer, image_size)
        self.spec = self.given if connector is None else connector.spec(self.given)
        if sample and (tokenizer is None or tokenizer.tokenizer.can_tokenize):
            raise ConfigError(
                'sample_posterior is True, and there is no tokenizer with a Gaussian to draw from',
                'Set it to False: only continuous tokenizers such as KLAutoencoder have one.',
            )

    @property
    def decodes(self) -> bool:
        """Whether there is a way back to pixels."""
        return self.tokenizer is None or self.tokenizer.tokenizer.can_decode

    def warn(self) -> None:
        """Say so if nothing brings the latents to the size of the noise."""
        if self.tokenizer is not None and not self.tokenizer.tokenizer.statistics.present and self.connector is None:
            logger.warning(
                'the tokenizer has no statistics of its latents, so they are not normalized, and the noise has unit variance. '
                'Put statistics into a file of the tokenizer: vq.tools.latents (docs/latents.md).'
            )

    @torch.no_grad()
    def encode(self, x: Tensor, noise: Tensor | None = None) -> Tensor:
        """fp32 (B, C, *cells). ``noise``: standard normal numbers of the shape of the latent, for
        ``sample``; without them it is the mean, as in validation."""
        if x.dtype == torch.uint8:
            x = to_float(x)
        if self.tokenizer is not None and tuple(x.shape[1:]) != self.given.shape:
            x = self._latent(self.tokenizer, x, noise)
        if tuple(x.shape[1:]) != self.given.shape:
            wanted = 'pixels' if self.tokenizer is None else 'latents'
            raise ConfigError(
                f'the task gets {in_words(tuple(x.shape[1:]))} numbers a sample, and learns {wanted} of the shape '
                f'{in_words(self.given.shape)}',
                'Set image_size of the task, or of its FrozenTokenizer, to the size of the images.',
            )
        return (x if self.connector is None else self.connector(x)).float()

    def _latent(self, tokenizer: FrozenTokenizer, image: Tensor, noise: Tensor | None) -> Tensor:
        """Normalized latents (B, C, *cells) of images (B, 3, H, W)."""
        codec = tokenizer.tokenizer
        if tokenizer.gives == 'features':
            return codec.normalize(codec.encode(image).mean)
        if not self.sample or noise is None:
            found: Tensor = tokenizer(image)
            return found
        latent = codec.encode(image)
        if latent.logvar is None:
            raise ConfigError(
                f'sample_posterior is True, and {type(codec).__name__} gives no variance', 'Set sample_posterior to False.'
            )
        return codec.normalize(latent.mean.float() + torch.exp(0.5 * latent.logvar.float()) * noise)

    @torch.no_grad()
    def latents(self, z: Tensor) -> Tensor:
        """z -> what the tokenizer's decoder takes: codes of the nearest tokens, if z are features before the quantizer."""
        z = z if self.connector is None else self.connector.inverse(z)
        if self.tokenizer is None:
            return z
        codec = self.tokenizer.tokenizer
        z = codec.denormalize(z)
        return codec.quantize(Latent(z)).z if self.tokenizer.gives == 'features' and codec.can_tokenize else z

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """What ``latents`` gave -> image (B, 3, H, W)."""
        return latents if self.tokenizer is None else self.tokenizer.tokenizer.decode(latents)


def given_of(tokenizer: FrozenTokenizer | None, image_size: ImageSize | None) -> LatentSpec:
    """What comes out of the tokenizer, or the images themselves."""
    if tokenizer is not None:
        latent = tokenizer.latent
        return LatentSpec(tokenizer.out_channels, latent.cells, latent.normalized)
    if image_size is None:
        raise ConfigError(
            'a diffusion task has neither a tokenizer nor an image_size',
            'Give tokenizer=dict(type="FrozenTokenizer", ...), or the size of the images to learn pixels.',
        )
    return LatentSpec(3, size_of(image_size))


def spec_in(values: Mapping[str, Any]) -> LatentSpec | None:
    """The shape that the denoiser of a task learns, from the settings of the task; None while they are not built."""
    tokenizer, connector = values.get('tokenizer'), values.get('connector')
    if isinstance(tokenizer, Mapping) or isinstance(connector, Mapping):
        return None
    given = given_of(tokenizer, values.get('image_size'))
    return given if connector is None else connector.spec(given)


def channels_in(values: Mapping[str, Any]) -> int | None:
    spec = spec_in(values)
    return None if spec is None else spec.channels


def cells_in(values: Mapping[str, Any]) -> tuple[int, ...] | None:
    spec = spec_in(values)
    return None if spec is None else spec.cells


def pixels_in(values: Mapping[str, Any]) -> tuple[int, ...] | None:
    """The size of the images, by which a conditioner measures boxes; None while the tokenizer is not built."""
    tokenizer = values.get('tokenizer')
    if isinstance(tokenizer, Mapping):
        return None
    size = values.get('image_size') if tokenizer is None else tokenizer.image_size
    return None if size is None else size_of(size)
