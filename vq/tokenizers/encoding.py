"""What tokenizers with an encoder, a connector and a quantizer share, whatever they make of the codes."""

from __future__ import annotations

from torch import Tensor

from vq.core.records import Latent, Quantized
from vq.core.specs import CodecSpec, LatentSpec, Size
from vq.interfaces import Connector, Encoder, Quantizer, Tokenizer
from vq.tokenizers.sizes import cells_of, check_image_size
from vq.tokenizers.width_check import check_join


class EncodingTokenizer(Tokenizer):
    """image -> encoder -> post_encode -> quantizer -> code vectors (B, C, h, w) and tokens (B, h, w).

    A quantizer can have several tokens per cell, (B, h, w, n), or tokens without a grid, (B, n).
    """

    can_tokenize = True

    def __init__(self, encoder: Encoder, quantizer: Quantizer, post_encode: Connector | None = None) -> None:
        super().__init__()
        self.encoder = encoder
        self.post_encode = post_encode
        self.quantizer = quantizer
        self.downsampling = encoder.downsampling
        check_join('encoder', encoder.out_channels, 'post_encode', post_encode, 'quantizer', quantizer.feature_dim)

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
        return self.connect(self.encoder(image))

    def connect(self, features: Tensor) -> Latent:
        """The output of the encoder (B, C, h, w) -> the input of ``quantize``."""
        return Latent(features if self.post_encode is None else self.post_encode(features))

    def quantize(self, latent: Latent) -> Quantized:
        quantized: Quantized = self.quantizer(latent.mean.permute(0, 2, 3, 1))  # channels last: (B, h, w, C)
        z = quantized.z.permute(0, 3, 1, 2)
        if latent.mean.is_contiguous():  # otherwise the whole decoder runs in NHWC, and its norms copy
            z = z.contiguous()
        return Quantized(z, quantized.tokens, quantized.losses, quantized.extra)

    def lookup(self, tokens: Tensor) -> Tensor:
        return self.quantizer.lookup(tokens).permute(0, 3, 1, 2).contiguous()

    def update(self, ok: Tensor | None = None) -> None:
        self.quantizer.update(ok)
