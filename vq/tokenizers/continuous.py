"""What continuous autoencoders without a distribution share: the latent is a point, the input of the decoder."""

from __future__ import annotations

from torch import Tensor

from vq.core.errors import ConfigError
from vq.core.records import Latent, Quantized
from vq.core.specs import CodecSpec, LatentSpec, Size
from vq.interfaces import Decoder, Encoder, Perturbation, Tokenizer
from vq.tokenizers.sizes import cells_of, check_image_size


class ContinuousAutoencoder(Tokenizer):
    """image -> encoder -> latent z (B, C, h, w) -> decoder -> image. There are no tokens, and no losses of the latent.

    ``perturbation`` disturbs z in training, so that the decoder forgives what a generator of latents gets wrong.
    """

    can_tokenize = False
    can_decode = True

    def __init__(self, encoder: Encoder, decoder: Decoder, perturbation: Perturbation | None) -> None:
        super().__init__()
        if encoder.out_channels != decoder.in_channels:
            raise ConfigError(
                f'the encoder gives {encoder.out_channels} channels and the decoder takes {decoder.in_channels}',
                'Leave in_channels of the decoder out: it takes that of the encoder.',
            )
        upsampling = getattr(decoder, 'upsampling', encoder.downsampling)
        if upsampling != encoder.downsampling:
            raise ConfigError(
                f'a cell of the encoder has {encoder.downsampling} pixels a side, and the decoder makes {upsampling}',
                'Give the decoder another patch, or the encoder another downsampling.',
            )
        self.encoder, self.decoder = encoder, decoder
        self.set_perturbation(perturbation, encoder.out_channels)
        self.downsampling, self.latent_channels = encoder.downsampling, encoder.out_channels

    def spec(self, size: Size) -> CodecSpec:
        return CodecSpec(None, LatentSpec(self.latent_channels, cells_of(size, self.downsampling), self.statistics.kind))

    def encode(self, image: Tensor) -> Latent:
        check_image_size(image.shape[-2], image.shape[-1], self.downsampling)
        return Latent(self.encoder(image))

    def code(self, latent: Latent) -> tuple[Tensor, Tensor | None, dict[str, Tensor]]:
        return latent.mean, None, {}

    def decode(self, z: Tensor) -> Tensor:
        image: Tensor = self.decoder(z)
        return image

    def decoder_features(self, z: Tensor) -> Tensor:
        return self.decoder.features(z)

    # not available without tokens

    def quantize(self, latent: Latent) -> Quantized:
        raise self.has_no_tokens()

    def lookup(self, tokens: Tensor) -> Tensor:
        raise self.has_no_tokens()

    def forward(self, image: Tensor) -> tuple[Tensor, Latent]:
        """image (B, 3, H, W) -> reconstruction (B, 3, H, W), and the latent."""
        latent = self.encode(image)
        return self.decode(self.perturbed(self.code(latent)[0], latent)), latent
