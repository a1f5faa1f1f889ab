"""The continuous autoencoder: an image becomes a Gaussian over maps, without codes or tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from vq.core.bindings import Source
from vq.core.errors import ConfigError
from vq.core.records import Latent, Quantized
from vq.core.specs import CodecSpec, LatentSpec, Size
from vq.interfaces import Connector, Decoder, Encoder, Perturbation, Tokenizer
from vq.nn.precision import no_autocast
from vq.registries import VQModelRegistry
from vq.tokenizers.sizes import cells_of, check_image_size

LOGVAR = (-30.0, 20.0)


def _latent_channels(settings: Mapping[str, Any]) -> int | None:
    """The channels that the decoder side takes; None while its parts are not built."""
    taking = settings.get('pre_decode') or settings.get('decoder')
    return getattr(taking, 'in_channels', None)


@VQModelRegistry.register_()
class KLAutoencoder(Tokenizer):
    """x -> N(mu, exp(l)),  z = mu + exp(l / 2) e,  loss 'kl' = E_x sum (mu^2 + exp(l) - 1 - l) / 2;  z -> image.

    (Kingma and Welling 2014; Rombach et al. 2022 for images.) image -> encoder -> post_encode -> mu and l, the two halves of
    the channels -> pre_decode -> decoder. Training decodes a sample, evaluation decodes mu. The loss is summed over channels
    and cells of an image. l is clamped to -30 .. 20.

    Latent diffusion's ``kl_weight`` of 1e-6 belongs to pixel losses that are summed over the image. Pixel losses here are
    means, for which the same balance is 1e-6 / (3 H W). Larger weights give smoother latents and blurred images.

    By default connectors keep the width: ``post_encode`` that of the encoder, twice the latent's, and ``pre_decode`` that of
    the decoder. ``perturbation`` disturbs latents in training, before ``pre_decode``. Codebook metrics refuse this model.
    """

    can_tokenize = False
    can_decode = True
    wires: ClassVar[dict[str, str]] = {
        'post_encode.in_channels': 'encoder.out_channels',
        'post_encode.out_channels': 'encoder.out_channels',
        'pre_decode.in_channels': 'decoder.in_channels',
        'pre_decode.out_channels': 'decoder.in_channels',
    }
    binds: ClassVar[dict[str, Source]] = {'perturbation.channels': _latent_channels}

    def __init__(
        self,
        *,
        encoder: Encoder,
        post_encode: Connector | None = None,
        decoder: Decoder,
        pre_decode: Connector | None = None,
        kl_weight: float = 1e-6,
        perturbation: Perturbation | None = None,
    ) -> None:
        super().__init__()
        moments = encoder.out_channels if post_encode is None else post_encode.out_channels
        taken = decoder.in_channels if pre_decode is None else pre_decode.in_channels
        if moments != 2 * taken:
            raise ConfigError(
                f'the encoder side gives {moments} channels and the decoder side takes {taken}',
                f'A mean and a variance for each of {taken} channels make {2 * taken}: set encoder.out_channels '
                '(or post_encode.out_channels) to that.',
            )
        if (post_encode is not None and post_encode.in_channels != encoder.out_channels) or (
            pre_decode is not None and pre_decode.out_channels != decoder.in_channels
        ):
            raise ConfigError(
                'a connector does not fit its network', 'Leave in_channels of post_encode and out_channels of pre_decode out.'
            )
        self.encoder = encoder
        self.post_encode = post_encode
        self.pre_decode = pre_decode
        self.decoder = decoder
        self.kl_weight = float(kl_weight)
        self.downsampling = encoder.downsampling
        self.latent_channels = taken
        self.set_perturbation(perturbation, taken)

    @property
    def loss_weights(self) -> dict[str, float]:
        """Reads ``kl_weight``, which a schedule can change at any time."""
        return {'kl': self.kl_weight}

    def spec(self, size: Size) -> CodecSpec:
        cells = cells_of(size, self.downsampling)
        return CodecSpec(None, LatentSpec(self.latent_channels, cells, self.statistics.kind))

    def encode(self, image: Tensor) -> Latent:
        check_image_size(image.shape[-2], image.shape[-1], self.downsampling)
        features = self.encoder(image)
        moments = features if self.post_encode is None else self.post_encode(features)
        mean, logvar = moments.float().chunk(2, dim=1)
        return Latent(mean, logvar.clamp(*LOGVAR))

    def code(self, latent: Latent) -> tuple[Tensor, Tensor | None, dict[str, Tensor]]:
        return self.sample(latent) if self.training else latent.mean, None, {'kl': self.divergence(latent).mean()}

    @staticmethod
    def sample(latent: Latent, noise: Tensor | None = None) -> Tensor:
        """Draw z (B, C, h, w), from torch's global generator unless ``noise`` is given."""
        assert latent.logvar is not None
        with no_autocast(latent.mean.device):
            noise = torch.randn_like(latent.mean) if noise is None else noise
            return latent.mean + torch.exp(0.5 * latent.logvar) * noise

    @staticmethod
    def divergence(latent: Latent) -> Tensor:
        """KL to the standard normal, summed over each image, (B,)."""
        assert latent.logvar is not None
        with no_autocast(latent.mean.device):
            terms = latent.mean.square() + latent.logvar.exp() - 1 - latent.logvar
            return 0.5 * terms.sum(dim=(1, 2, 3))

    def decode(self, z: Tensor) -> Tensor:
        image: Tensor = self.decoder(z if self.pre_decode is None else self.pre_decode(z))
        return image

    def decoder_features(self, z: Tensor) -> Tensor:
        return self.decoder.features(z if self.pre_decode is None else self.pre_decode(z))

    # not available without tokens

    def quantize(self, latent: Latent) -> Quantized:
        raise self.has_no_tokens()

    def lookup(self, tokens: Tensor) -> Tensor:
        raise self.has_no_tokens()

    def forward(self, image: Tensor) -> tuple[Tensor, Latent]:
        """image (B, 3, H, W) -> reconstruction (B, 3, H, W), and the Gaussian of the latent."""
        latent = self.encode(image)
        return self.decode(self.perturbed(self.code(latent)[0], latent)), latent
