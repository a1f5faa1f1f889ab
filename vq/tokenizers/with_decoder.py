"""A trained tokenizer whose tokens are turned into pixels by another decoder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from vq.core.errors import ConfigError
from vq.core.records import Latent, Quantized
from vq.encoders.frozen_tokenizer import FrozenTokenizer
from vq.interfaces import Connector, Decoder, Encoder, Tokenizer
from vq.registries import VQModelRegistry
from vq.tokenizers.width_check import check_join


@VQModelRegistry.register_()
class TokenizerWithDecoder(Tokenizer):
    """image -> the frozen tokenizer's encoder and quantizer -> tokens -> code vectors -> pre_decode -> decoder -> image.

    - ``frozen``: a ``FrozenTokenizer``. It encodes, quantizes and looks tokens up; whether it can decode does not matter, and
      a decoder of its own is let go. Never in training, without gradients, and out of checkpoints but for the digest of its
      file.
    - ``decoder``, ``pre_decode``: what learns. The connector takes its widths from both sides; a decoder without one takes as
      many channels as the codes have.

    Images may be of another size than those the tokenizer was trained on, if its encoder takes them: a cell is as many pixels
    as before, so there are more tokens or fewer. The decoder must make as many pixels of a cell.
    """

    can_decode = True
    wires: ClassVar[dict[str, str]] = {
        'decoder.in_channels': 'frozen.out_channels',
        'pre_decode.in_channels': 'frozen.out_channels',
        'pre_decode.out_channels': 'decoder.in_channels',
    }

    def __init__(self, *, frozen: Encoder, decoder: Decoder, pre_decode: Connector | None = None) -> None:
        super().__init__()
        if not isinstance(frozen, FrozenTokenizer) or frozen.gives != 'codes':
            raise ConfigError(
                'a decoder learns from the code vectors of a frozen tokenizer',
                "Write frozen=dict(type='FrozenTokenizer', tokenizer=..., weights=...), with gives='codes'.",
            )
        check_join('the tokenizer', frozen.out_channels, 'pre_decode', pre_decode, 'the decoder', decoder.in_channels)
        upsampling = getattr(decoder, 'upsampling', frozen.downsampling)
        if upsampling != frozen.downsampling:
            raise ConfigError(
                f'a token of this tokenizer stands for {frozen.downsampling} x {frozen.downsampling} pixels, and the decoder '
                f'makes {upsampling} x {upsampling} of it',
                f'Give the decoder {frozen.downsampling} pixels a token, by its multipliers (one doubling from each to the '
                'next) or the patch of a ViTDecoder, or take a tokenizer with other cells.',
            )
        frozen.forget_decoder()
        self.frozen = frozen
        self.pre_decode = pre_decode
        self.decoder = decoder
        self.downsampling = frozen.downsampling

    # the frozen part

    @property
    def codebook_size(self) -> int:  # type: ignore[override]
        return self.frozen.tokenizer.codebook_size

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        return self.frozen.tokenizer.codebook_sizes

    @property
    def loss_weights(self) -> Mapping[str, float]:
        """A frozen quantizer asks for nothing."""
        return {}

    def token_shape(self, image_size: int) -> tuple[int, ...]:
        return self.frozen.tokenizer.token_shape(image_size)

    def latent_shape(self, image_size: int) -> tuple[int, ...]:
        return self.frozen.tokenizer.latent_shape(image_size)

    @torch.no_grad()
    def encode(self, image: Tensor) -> Latent:
        return self.frozen.tokenizer.encode(image)

    @torch.no_grad()
    def quantize(self, latent: Latent) -> Quantized:
        """The losses of what is frozen are left out, here and in ``code``."""
        quantized = self.frozen.tokenizer.quantize(latent)
        return Quantized(quantized.z, quantized.tokens, {}, quantized.extra)

    @torch.no_grad()
    def code(self, latent: Latent) -> tuple[Tensor, Tensor | None, dict[str, Tensor]]:
        """As in evaluation: of continuous tokenizers the mean."""
        z, tokens, _ = self.frozen.tokenizer.code(latent)
        return z, tokens, {}

    @torch.no_grad()
    def lookup(self, tokens: Tensor) -> Tensor:
        return self.frozen.tokenizer.lookup(tokens)

    # the part that learns

    def decode(self, z: Tensor) -> Tensor:
        image: Tensor = self.decoder(z if self.pre_decode is None else self.pre_decode(z))
        return image

    def decoder_features(self, z: Tensor) -> Tensor:
        return self.decoder.features(z if self.pre_decode is None else self.pre_decode(z))
