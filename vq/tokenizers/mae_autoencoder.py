"""The masked autoencoder as a tokenizer: latents are the vectors of its patches."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from vq.core.errors import ConfigError
from vq.core.records import Latent
from vq.core.specs import CodecSpec, LatentSpec, Size
from vq.decoders.mae import MAEDecoder
from vq.encoders.mae import MAEEncoder
from vq.interfaces import Decoder, Encoder, Perturbation
from vq.registries import VQModelRegistry
from vq.tokenizers.continuous import ContinuousAutoencoder
from vq.tokenizers.sizes import check_image_size

MASK = 'mask'  # in Latent.extra


@VQModelRegistry.register_()
class MAEAutoencoder(ContinuousAutoencoder):
    """image -> ViT-MAE encoder -> latents -> ViT-MAE decoder -> image (He et al. 2022).

    - ``encoder``: a ``MAEEncoder``, which is frozen unless its ``train_encoder``. With its ``mask_ratio``, the decoder gets a
      learned vector for the masked patches in training, and reconstructs them.
    - ``decoder``: a ``MAEDecoder``. With class_token='learned' (``no_cls``) the class token of the encoder is dropped and the
      latent is a map (B, C, h, w). With 'given' the latent is the sequence (B, C, 1 + h * w), the class token first, of which
      the latent maps ``DropClassToken`` and ``Reshape`` make a map.

    ViT-MAE trains with a loss on masked patches alone; here losses are on the whole image, as an autoencoder needs.
    """

    wires: ClassVar[dict[str, str]] = {'decoder.in_channels': 'encoder.out_channels'}
    binds: ClassVar[dict[str, str]] = {
        'decoder.patch': 'encoder.downsampling',
        'decoder.pixel_mean': 'encoder.pixel_mean',
        'decoder.pixel_deviation': 'encoder.pixel_deviation',
        'perturbation.channels': 'encoder.out_channels',
    }

    def __init__(self, *, encoder: Encoder, decoder: Decoder, perturbation: Perturbation | None = None) -> None:
        if not isinstance(encoder, MAEEncoder) or not isinstance(decoder, MAEDecoder):
            raise ConfigError(
                f'MAEAutoencoder was given {type(encoder).__name__} and {type(decoder).__name__}',
                'Give a MAEEncoder and a MAEDecoder; RepresentationAutoencoder takes others.',
            )
        if bool(encoder.mask_ratio) != decoder.masked:
            raise ConfigError(
                f'the mask_ratio of the encoder is {encoder.mask_ratio}, and masked of the decoder is {decoder.masked}',
                'Give the decoder masked=True if patches are masked, and masked=False if none is.',
            )
        super().__init__(encoder, decoder, perturbation)
        self.no_cls = decoder.class_token is not None

    def spec(self, size: Size) -> CodecSpec:
        latent = super().spec(size).latent
        assert latent is not None
        if self.no_cls:
            return CodecSpec(None, latent)
        cells = (1 + latent.cells[0] * latent.cells[1],)
        return CodecSpec(None, LatentSpec(latent.channels, cells, latent.normalized))

    def encode(self, image: Tensor) -> Latent:
        check_image_size(image.shape[-2], image.shape[-1], self.downsampling)
        assert isinstance(self.encoder, MAEEncoder)
        seen = self.encoder.see(image)
        z, mask = seen.cells, seen.mask
        if not self.no_cls:
            z = torch.cat([seen.class_token[..., None], z.flatten(2)], 2)
            mask = None if mask is None else torch.cat([torch.zeros_like(mask[..., :1, 0]), mask.flatten(2)], 2)
        return Latent(z, extra={} if mask is None else {MASK: mask})

    def code(self, latent: Latent) -> tuple[Tensor, Tensor | None, dict[str, Tensor]]:
        """z for ``decode``. In training with masks it has one channel more, 1 where a cell is masked."""
        z, tokens, losses = super().code(latent)
        mask = latent.extra.get(MASK)
        return z if mask is None else torch.cat([z, mask.to(z.dtype)], 1), tokens, losses

    def perturbed(self, z: Tensor, latent: Latent, tokens: Tensor | None = None) -> Tensor:
        """The channel of the mask stays."""
        if MASK not in latent.extra:
            return super().perturbed(z, latent, tokens)
        return torch.cat([super().perturbed(z[:, :-1], latent, tokens), z[:, -1:]], 1)
