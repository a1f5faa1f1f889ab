"""Networks between pixels, features, tokens and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from vq.core.errors import UserError
from vq.core.records import Latent, Quantized
from vq.core.specs import CodecSpec, LatentSpec, Size, TokenSpec
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


class FeatureDecoder(nn.Module):
    """code vectors (B, in_channels, h, w) -> features (B, out_channels, h, w): the prediction of a teacher's patch map."""

    in_channels: int
    out_channels: int
    compiles = 'forward'


class Quantizer(nn.Module):
    """features (..., C) -> code vectors (..., C) and tokens (...); computed in fp32, also under autocast.

    In training ``forward`` only *observes* (sums, counts), unless ``updates_in_forward``. ``update`` changes the codes once
    per optimizer step, by all-reduces, bitwise equally on every rank. In eval mode no collective is issued.
    """

    embedding_dim: int
    codebook_size: int  # tokens are below it
    rounds: bool = False  # True: to levels of each channel, see ``unrounded``
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

    def unrounded(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Features (..., C) -> their code vectors (..., C) before they are rounded, and the distance of levels (C,)."""
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


class Coding(NamedTuple):
    """Where z came from."""

    features: Tensor  # the mean of the latent: of discrete tokenizers, the input of the quantizer (B, C', *cells)
    tokens: Tensor | None = None
    quantizer: Quantizer | None = None


class Perturbation(nn.Module):
    """z (B, C, *cells), the input of the decoder -> the same shape, disturbed in training only: a decoder that has seen
    disturbed latents forgives those that a generator makes. A sequence is (B, C, L). See ``vq/nn/perturbations/``."""

    def check(self, channels: int, quantizer: Quantizer | None) -> None:
        """Raise unless this part can disturb latents of so many channels, of this quantizer."""

    def forward(self, z: Tensor, coding: Coding | None = None) -> Tensor:
        raise NotImplementedError


class LatentMap(nn.Module):
    """Latents of a tokenizer (B, C, *cells) <-> the latents of a second stage (B, C', *cells'): see ``vq/nn/latent_maps.py``.

    ``forward(inverse(z))`` is z: to the bit, or to rounding where a map computes. A sequence has one axis of cells.
    """

    def forward(self, z: Tensor) -> Tensor:
        raise NotImplementedError

    def inverse(self, z: Tensor) -> Tensor:
        raise NotImplementedError

    def spec(self, latent: LatentSpec) -> LatentSpec:
        """The output of ``forward`` for latents of this kind; an error for latents that it does not take."""
        raise NotImplementedError


class CodebookUpdate(nn.Module):
    """A rule that moves a codebook outside of gradient descent: see ``vq/quantizers/updates/``."""

    in_forward: bool = False


class Tokenizer(nn.Module):
    """image -> latent -> tokens -> image. Continuous tokenizers stop at the latent."""

    can_tokenize: bool  # False: continuous, without tokens
    can_decode: bool
    decoder: Decoder  # only if ``can_decode``
    codebooks: tuple[int, ...]  # only if ``can_tokenize``: the size of each codebook
    training_only: tuple[str, ...] = (
        'perturbation',
    )  # names of parts that neither tokens nor images need: a frozen tokenizer drops them

    def __init__(self) -> None:
        super().__init__()
        self.statistics = LatentStatistics()
        self.perturbation: Perturbation | None = None

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

    def set_perturbation(self, perturbation: Perturbation | None, channels: int, quantizer: Quantizer | None = None) -> None:
        """Have z (B, ``channels``, *cells) disturbed in training, before it is decoded."""
        if perturbation is not None:
            perturbation.check(channels, quantizer)
        self.perturbation = perturbation

    def perturbed(self, z: Tensor, latent: Latent, tokens: Tensor | None = None) -> Tensor:
        """z and tokens of ``code(latent)`` -> the input of ``decode`` in training; z itself in evaluation."""
        if self.perturbation is None or not self.training:
            return z
        disturbed: Tensor = self.perturbation(z, Coding(latent.mean, tokens, getattr(self, 'quantizer', None)))
        return disturbed

    def has_no_pixels(self, source: str = 'RUN') -> UserError:
        """The error for images that are asked of a tokenizer without a decoder. ``source``: what ``vq.load`` calls it."""
        return UserError(
            f'{type(self).__name__} makes no pixels: it has no decoder',
            f'Train one on its tokens: auto_torchrun -m vq.train NAME configs/decoder/vqgan.py tokenizer={source}, or with '
            'the config of this tokenizer: it_config=CONFIG --load-model-from RUN. See docs/reconstruction.md.',
        )

    def decode(self, z: Tensor) -> Tensor:
        """Code vectors (B, C, h, w) -> image (B, 3, H, W) float."""
        if not self.can_decode:
            raise self.has_no_pixels()
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
