"""Networks between pixels, features, tokens and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from vq.core.errors import UserError
from vq.core.records import Latent, Quantized
from vq.core.specs import CodecSpec, Size, TokenSpec
from vq.interfaces.latents import LatentStatistics


class Encoder(nn.Module):
    """image (B, 3, H, W) float in [-1, 1] -> features (B, out_channels, h, w)."""

    out_channels: int
    downsampling: int  # H / h
    compiles = 'forward'  # the method that a strategy with ``compile`` compiles by default; '' for none


class Connector(nn.Module):
    """features (B, in_channels, h, w) -> features (B, out_channels, h, w)."""

    in_channels: int
    out_channels: int


class Decoder(nn.Module):
    """code vectors (B, in_channels, h, w) -> image (B, 3, H, W), about [-1, 1]: a body, then one last layer.

    The last layer is separate because ``AdaptiveWeight`` compares gradients at the weight of this layer.
    """

    in_channels: int
    compiles = 'features'  # the last layer is one convolution

    def features(self, z: Tensor) -> Tensor:
        """The input of the last layer."""
        raise NotImplementedError

    def project(self, features: Tensor) -> Tensor:
        """The last layer: features -> image."""
        raise NotImplementedError

    def last_layer_gradients(self, features: Tensor, image: Tensor, gradients: Tensor) -> Tensor:
        """Gradients of n losses at the image (n, B, 3, H, W) -> at the last layer's weight (n, *weight.shape): in closed form,
        from the detached input and output of the layer. Without autograd; the weight, which can be a shard, is not read."""
        raise NotImplementedError

    def forward(self, z: Tensor) -> Tensor:
        return self.project(self.features(z))


class Quantizer(nn.Module):
    """features (..., C) -> code vectors (..., C) and tokens (...); computed in fp32, also under autocast.

    In training ``forward`` only *observes* (sums, counts), unless ``updates_in_forward``. ``update`` changes the codes once
    per optimizer step, by all-reduces, bitwise equally on every rank. In eval mode no collective is issued.
    """

    embedding_dim: int
    codebook_size: int  # tokens are below it
    updates_in_forward: bool = False  # True: refuses gradient accumulation and activation checkpointing
    loss_weights: Mapping[str, float] = {}  # of the losses in Quantized.losses; 1 for names that are missing
    compiles = 'forward'

    @property
    def codebooks(self) -> tuple[int, ...]:
        """The size of each codebook. Tokens of several have a last axis for them."""
        return (self.codebook_size,)

    @property
    def feature_dim(self) -> int:
        """Channels of the input features, by default those of the codes."""
        return self.embedding_dim

    def forward(self, features: Tensor) -> Quantized:
        raise NotImplementedError

    def lookup(self, tokens: Tensor) -> Tensor:
        """tokens (...) -> code vectors (..., C), exactly those of ``forward`` in eval."""
        raise NotImplementedError

    def update(self, ok: Tensor | None = None) -> None:
        """Update the codes by the observations since the last call, unless ``ok`` (a bool on the device) is false."""

    @property
    def bits(self) -> float:
        """Bits per token; with several tokens per feature, the sum over them."""
        raise NotImplementedError

    def token_spec(self, cells: tuple[int, ...]) -> TokenSpec:
        """The tokens of features (*cells, C)."""
        return TokenSpec(cells, self.codebooks)


class CodebookUpdate(nn.Module):
    """A rule that moves a codebook outside of gradient descent: see ``vq/quantizers/updates/``."""

    in_forward: bool = False


class Tokenizer(nn.Module):
    """image -> latent -> tokens -> image. Continuous tokenizers stop at the latent."""

    can_tokenize: bool  # False: continuous, without tokens
    can_decode: bool
    decoder: Decoder  # only if ``can_decode``
    codebooks: tuple[int, ...]  # only if ``can_tokenize``: the size of each codebook

    def __init__(self) -> None:
        super().__init__()
        self.statistics = LatentStatistics()

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *others: Any) -> None:
        own = [key for key in state_dict if key.startswith(prefix)]
        if own and not any(key.startswith(f'{prefix}statistics.') for key in own):
            self.statistics.clear()  # weights of this tokenizer, without statistics
        super()._load_from_state_dict(state_dict, prefix, *others)  # type: ignore[no-untyped-call]

    def spec(self, size: Size) -> CodecSpec:
        """The tokens and the latent of an image of ``size``, such as (height, width)."""
        raise NotImplementedError

    def token_spec(self, size: Size) -> TokenSpec:
        """The tokens of an image of ``size``."""
        found = self.spec(size).tokens
        if found is None:
            raise self.has_no_tokens()
        return found

    @property
    def codebook_size(self) -> int:
        """The size of the largest codebook: tokens are below it."""
        return max(self.codebooks)

    def has_no_tokens(self) -> UserError:
        """The error for tokens that are asked of a continuous tokenizer."""
        return UserError(
            f'{type(self).__name__} is continuous: it has latents, and no tokens',
            'Use encode(image).mean and decode(latents); for tokens take a tokenizer with a quantizer.',
        )

    @property
    def loss_weights(self) -> Mapping[str, float]:
        """The weights of the losses in Quantized.losses; 1 for names that are missing."""
        return {}

    def encode(self, image: Tensor) -> Latent:
        raise NotImplementedError

    def quantize(self, latent: Latent) -> Quantized:
        raise NotImplementedError

    def code(self, latent: Latent) -> tuple[Tensor, Tensor | None, dict[str, Tensor]]:
        """(the input z of ``decode`` (B, C, h, w), tokens or None, unweighted losses)."""
        quantized = self.quantize(latent)
        return quantized.z, quantized.tokens, quantized.losses

    def decode(self, z: Tensor) -> Tensor:
        """Code vectors (B, C, h, w) -> image (B, 3, H, W) float."""
        raise NotImplementedError

    def decoder_features(self, z: Tensor) -> Tensor:
        """Code vectors -> the input of ``decoder.project``, for tokenizers trained adversarially."""
        raise NotImplementedError

    def lookup(self, tokens: Tensor) -> Tensor:
        """tokens (B, *tokens.shape) -> code vectors (B, C, h, w)."""
        raise NotImplementedError

    def normalize(self, z: Tensor) -> Tensor:
        """z of ``decode`` -> what second stages see: of unit variance if the tokenizer has statistics of its latents."""
        return self.statistics.normalize(z)

    def denormalize(self, z: Tensor) -> Tensor:
        """The reverse of ``normalize``."""
        return self.statistics.denormalize(z)

    def update(self, ok: Tensor | None = None) -> None:
        """Called once per optimizer step: updates codebooks."""

    @torch.no_grad()
    def tokenize(self, image: Tensor) -> Tensor:
        """image (B, 3, H, W) float in [-1, 1] -> tokens int64 (B, *tokens.shape)."""
        return self.quantize(self.encode(image)).tokens

    @torch.no_grad()
    def detokenize(self, tokens: Tensor) -> Tensor:
        """tokens -> image (B, 3, H, W) float."""
        return self.decode(self.lookup(tokens))
