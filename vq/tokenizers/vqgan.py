"""Encoder, connector, quantizer, connector, decoder: the structure of VQ-VAE, VQGAN and most later tokenizers."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from vq.core.errors import ConfigError
from vq.core.records import Latent, Quantized
from vq.core.specs import CodecSpec, LatentSpec, Size
from vq.interfaces import Connector, Decoder, Encoder, Quantizer, Tokenizer
from vq.registries import VQModelRegistry
from vq.tokenizers.sizes import cells_of, check_image_size
from vq.tokenizers.width_check import check_join


@VQModelRegistry.register_()
class VQGAN(Tokenizer):
    """image -> encoder -> post_encode -> quantizer -> pre_decode -> decoder -> image; tokens (B, h, w).

    A quantizer can have several tokens per cell, (B, h, w, n), or tokens without a grid, (B, n).
    Widths that the config leaves out follow from the neighbours: a connector takes its widths from both sides, the decoder
    takes ``in_channels`` from the encoder. Without connectors ``out_channels`` of the encoder must equal ``feature_dim`` of
    the quantizer, which is by default its ``embedding_dim``.
    """

    can_tokenize = True
    can_decode = True
    # parts are built in the order of the signature, and a wire can only start at a part that is already built
    wires: ClassVar[dict[str, str]] = {
        'post_encode.in_channels': 'encoder.out_channels',
        'post_encode.out_channels': 'quantizer.feature_dim',
        'decoder.in_channels': 'encoder.out_channels',
        'pre_decode.in_channels': 'quantizer.embedding_dim',
        'pre_decode.out_channels': 'decoder.in_channels',
    }

    def __init__(
        self,
        *,
        encoder: Encoder,
        quantizer: Quantizer,
        post_encode: Connector | None = None,
        decoder: Decoder,
        pre_decode: Connector | None = None,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.post_encode = post_encode
        self.quantizer = quantizer
        self.pre_decode = pre_decode
        self.decoder = decoder
        self.downsampling = encoder.downsampling
        check_join('encoder', encoder.out_channels, 'post_encode', post_encode, 'quantizer', quantizer.feature_dim)
        check_join('quantizer', quantizer.embedding_dim, 'pre_decode', pre_decode, 'decoder', decoder.in_channels)
        upsampling = getattr(decoder, 'upsampling', encoder.downsampling)
        if upsampling != encoder.downsampling:
            raise ConfigError(
                f'encoder shrinks images {encoder.downsampling} times, decoder enlarges them {upsampling} times',
                'Give both the same multipliers.',
            )

    @property
    def codebooks(self) -> tuple[int, ...]:  # type: ignore[override]
        return self.quantizer.codebooks

    @property
    def bits(self) -> float:
        """Bits per token; with several tokens per cell, the sum over them."""
        return self.quantizer.bits

    @property
    def loss_weights(self) -> dict[str, float]:
        """The weights of the quantizer's losses."""
        weights: dict[str, float] = getattr(self.quantizer, 'loss_weights', {})
        return weights

    def spec(self, size: Size) -> CodecSpec:
        cells = cells_of(size, self.downsampling)
        return CodecSpec(
            self.quantizer.token_spec(cells), LatentSpec(self.quantizer.embedding_dim, cells, self.statistics.kind)
        )

    def encode(self, image: Tensor) -> Latent:
        check_image_size(image.shape[-2], image.shape[-1], self.downsampling)
        features = self.encoder(image)
        return Latent(features if self.post_encode is None else self.post_encode(features))

    def quantize(self, latent: Latent) -> Quantized:
        quantized: Quantized = self.quantizer(latent.mean.permute(0, 2, 3, 1))  # channels last: (B, h, w, C)
        z = quantized.z.permute(0, 3, 1, 2)
        if latent.mean.is_contiguous():  # otherwise the whole decoder runs in NHWC, and its norms copy
            z = z.contiguous()
        return Quantized(z, quantized.tokens, quantized.losses, quantized.extra)

    def decode(self, z: Tensor) -> Tensor:
        image: Tensor = self.decoder(z if self.pre_decode is None else self.pre_decode(z))
        return image

    def decoder_features(self, z: Tensor) -> Tensor:
        return self.decoder.features(z if self.pre_decode is None else self.pre_decode(z))

    def lookup(self, tokens: Tensor) -> Tensor:
        return self.quantizer.lookup(tokens).permute(0, 3, 1, 2).contiguous()

    def update(self, ok: Tensor | None = None) -> None:
        self.quantizer.update(ok)

    def forward(self, image: Tensor) -> tuple[Tensor, Quantized]:
        """image (B, 3, H, W) -> reconstruction (B, 3, H, W), and the output of the quantizer."""
        quantized = self.quantize(self.encode(image))
        return self.decode(quantized.z), quantized
