"""A frozen tokenizer with a new decoder, which is trained on its tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from vq.core.bindings import Source
from vq.core.errors import ConfigError
from vq.core.records import Latent, Quantized
from vq.core.specs import CodecSpec, Size
from vq.encoders.frozen_tokenizer import FrozenTokenizer
from vq.interfaces import Connector, Decoder, Encoder, Perturbation, Quantizer, Tokenizer
from vq.registries import VQModelRegistry
from vq.tokenizers.width_check import check_join


@VQModelRegistry.register_()
class TokenizerWithDecoder(Tokenizer):
    """image -> the frozen tokenizer's encoder and quantizer -> tokens -> code vectors -> pre_decode -> decoder -> image.

    - ``frozen``: a ``FrozenTokenizer``. It encodes, quantizes and looks tokens up. Its own decoder, if any, is dropped. It is
      always in eval mode and gets no gradients; checkpoints have only the digest of its file.
    - ``decoder``, ``pre_decode``: the trained parts. The connector takes its widths from both sides. Without a connector the
      decoder has as many input channels as the codes.
    - ``perturbation``: disturbs code vectors in training, before ``pre_decode``.

    If its encoder allows, the tokenizer takes images of another size than in its training: a cell has as many pixels as
    before, so the number of tokens changes. The decoder must make as many pixels of a cell.
    """

    can_decode = True
    wires: ClassVar[dict[str, str]] = {
        'decoder.in_channels': 'frozen.out_channels',
        'pre_decode.in_channels': 'frozen.out_channels',
        'pre_decode.out_channels': 'decoder.in_channels',
    }
    binds: ClassVar[dict[str, Source]] = {'perturbation.channels': 'frozen.out_channels'}

    def __init__(
        self,
        *,
        frozen: Encoder,
        decoder: Decoder,
        pre_decode: Connector | None = None,
        perturbation: Perturbation | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(frozen, FrozenTokenizer) or frozen.gives != 'codes':
            raise ConfigError(
                'TokenizerWithDecoder trains a decoder on the code vectors of a frozen tokenizer',
                "Write frozen=dict(type='FrozenTokenizer', tokenizer=..., weights=...), with gives='codes'.",
            )
        check_join('the tokenizer', frozen.out_channels, 'pre_decode', pre_decode, 'the decoder', decoder.in_channels)
        upsampling = getattr(decoder, 'upsampling', frozen.downsampling)
        if upsampling != frozen.downsampling:
            raise ConfigError(
                f'a token of this tokenizer stands for {frozen.downsampling} x {frozen.downsampling} pixels, and the decoder '
                f'makes {upsampling} x {upsampling} pixels',
                f'Give the decoder {frozen.downsampling} pixels a token, by its multipliers (one doubling from each to the '
                'next) or the patch of a ViTDecoder, or take a tokenizer with another number of pixels a token.',
            )
        frozen.forget_decoder()
        self.frozen = frozen
        self.pre_decode = pre_decode
        self.decoder = decoder
        self.downsampling = frozen.downsampling
        self.set_perturbation(perturbation, frozen.out_channels, self.quantizer)

    # the frozen part

    @property
    def quantizer(self) -> Quantizer | None:
        """That of the frozen tokenizer, if it is discrete."""
        found = getattr(self.frozen.tokenizer, 'quantizer', None)
        return found if isinstance(found, Quantizer) else None

    @property
    def can_tokenize(self) -> bool:  # type: ignore[override]
        return self.frozen.tokenizer.can_tokenize

    @property
    def codebooks(self) -> tuple[int, ...]:  # type: ignore[override]
        return self.frozen.tokenizer.codebooks

    @property
    def loss_weights(self) -> Mapping[str, float]:
        """Empty: a frozen quantizer has no losses."""
        return {}

    def spec(self, size: Size) -> CodecSpec:
        return self.frozen.tokenizer.spec(size)

    def normalize(self, z: Tensor) -> Tensor:
        return self.frozen.tokenizer.normalize(z)

    def denormalize(self, z: Tensor) -> Tensor:
        return self.frozen.tokenizer.denormalize(z)

    @torch.no_grad()
    def encode(self, image: Tensor) -> Latent:
        return self.frozen.tokenizer.encode(image)

    @torch.no_grad()
    def quantize(self, latent: Latent) -> Quantized:
        """The losses of the frozen quantizer are left out, here and in ``code``."""
        quantized = self.frozen.tokenizer.quantize(latent)
        return Quantized(quantized.z, quantized.tokens, {}, quantized.extra)

    @torch.no_grad()
    def code(self, latent: Latent) -> tuple[Tensor, Tensor | None, dict[str, Tensor]]:
        """As in evaluation: z of a continuous tokenizer is the mean."""
        z, tokens, _ = self.frozen.tokenizer.code(latent)
        return z, tokens, {}

    @torch.no_grad()
    def lookup(self, tokens: Tensor) -> Tensor:
        return self.frozen.tokenizer.lookup(tokens)

    # the trained part

    def decode(self, z: Tensor) -> Tensor:
        image: Tensor = self.decoder(z if self.pre_decode is None else self.pre_decode(z))
        return image

    def decoder_features(self, z: Tensor) -> Tensor:
        return self.decoder.features(z if self.pre_decode is None else self.pre_decode(z))
