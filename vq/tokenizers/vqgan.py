"""Encoder, connector, quantizer, connector, decoder: the structure of VQ-VAE, VQGAN and most later tokenizers."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from vq.core.bindings import Source
from vq.core.errors import ConfigError
from vq.core.records import Quantized
from vq.interfaces import Connector, Decoder, Encoder, Perturbation, Quantizer
from vq.registries import VQModelRegistry
from vq.tokenizers.encoding import EncodingTokenizer
from vq.tokenizers.width_check import check_join


@VQModelRegistry.register_()
class VQGAN(EncodingTokenizer):
    """image -> encoder -> post_encode -> quantizer -> pre_decode -> decoder -> image; tokens (B, h, w).

    Widths that the config leaves out follow from the neighbours: a connector takes its widths from both sides, the decoder
    takes ``in_channels`` from the encoder. Without connectors ``out_channels`` of the encoder must equal ``feature_dim`` of
    the quantizer, which is by default its ``embedding_dim``.

    ``perturbation`` disturbs code vectors in training, before ``pre_decode``.
    """

    can_decode = True
    # parts are built in the order of the signature, and a wire can only start at a part that is already built
    wires: ClassVar[dict[str, str]] = {
        'post_encode.in_channels': 'encoder.out_channels',
        'post_encode.out_channels': 'quantizer.feature_dim',
        'decoder.in_channels': 'encoder.out_channels',
        'pre_decode.in_channels': 'quantizer.embedding_dim',
        'pre_decode.out_channels': 'decoder.in_channels',
    }
    binds: ClassVar[dict[str, Source]] = {'perturbation.channels': 'quantizer.embedding_dim'}

    def __init__(
        self,
        *,
        encoder: Encoder,
        quantizer: Quantizer,
        post_encode: Connector | None = None,
        decoder: Decoder,
        pre_decode: Connector | None = None,
        perturbation: Perturbation | None = None,
    ) -> None:
        super().__init__(encoder, quantizer, post_encode)
        self.pre_decode = pre_decode
        self.decoder = decoder
        self.set_perturbation(perturbation, quantizer.embedding_dim, quantizer)
        check_join('quantizer', quantizer.embedding_dim, 'pre_decode', pre_decode, 'decoder', decoder.in_channels)
        upsampling = getattr(decoder, 'upsampling', encoder.downsampling)
        if upsampling != encoder.downsampling:
            raise ConfigError(
                f'encoder shrinks images {encoder.downsampling} times, decoder enlarges them {upsampling} times',
                'Give both the same multipliers.',
            )

    def decode(self, z: Tensor) -> Tensor:
        image: Tensor = self.decoder(z if self.pre_decode is None else self.pre_decode(z))
        return image

    def decoder_features(self, z: Tensor) -> Tensor:
        return self.decoder.features(z if self.pre_decode is None else self.pre_decode(z))

    def forward(self, image: Tensor) -> tuple[Tensor, Quantized]:
        """image (B, 3, H, W) -> reconstruction (B, 3, H, W), and the output of the quantizer."""
        latent = self.encode(image)
        quantized = self.quantize(latent)
        return self.decode(self.perturbed(quantized.z, latent, quantized.tokens)), quantized
