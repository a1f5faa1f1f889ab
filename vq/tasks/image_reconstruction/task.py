"""Train a pixel decoder for a frozen tokenizer, with losses on the image alone or also with a discriminator."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from vq.core.errors import ConfigError
from vq.core.records import Latent
from vq.interfaces import ActsOn
from vq.registries import VQTaskRegistry
from vq.tasks.image_tokenization.adversarial import AdversarialTokenization
from vq.tasks.image_tokenization.task import AutoEncoderOutput, ImageTokenization
from vq.tokenizers.with_decoder import TokenizerWithDecoder


class Decoding(nn.Module):
    """The root the optimizer owns, without any frozen module: code vectors (B, C, h, w) -> image (B, 3, H, W).

    The mean of the latent and the tokens are for perturbations.
    """

    def __init__(self, tokenizer: TokenizerWithDecoder, with_features: bool) -> None:
        super().__init__()
        self.pre_decode, self.decoder, self.with_features = tokenizer.pre_decode, tokenizer.decoder, with_features
        self.perturbation = tokenizer.perturbation
        self._whole = (tokenizer,)  # in a tuple, so that nn.Module does not register it

    def forward(self, z: Tensor, mean: Tensor, tokens: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """The image; in training with ``with_features`` also the input of the decoder's last layer, otherwise None."""
        (tokenizer,) = self._whole
        z = tokenizer.perturbed(z, Latent(mean), tokens)
        if not (self.with_features and tokenizer.training):
            return tokenizer.decode(z), None
        features = tokenizer.decoder_features(z)
        return tokenizer.decoder.project(features), features


class OnFrozenTokenizer(ImageTokenization):
    """Base of the two tasks below: the frozen tokenizer runs outside the trained root."""

    kind: ClassVar[str] = 'decoder'
    takes: ClassVar[tuple[ActsOn, ...]] = ('image', 'parameters')  # the latent is frozen

    def _make_root(self, with_features: bool = False) -> nn.Module:
        if not isinstance(self.tokenizer, TokenizerWithDecoder):
            raise ConfigError(
                f'{type(self).__name__} trains a decoder for a frozen tokenizer, and was given a '
                f'{type(self.tokenizer).__name__}',
                "Give tokenizer=dict(type='TokenizerWithDecoder', frozen=dict(type='FrozenTokenizer', ...), decoder=...).",
            )
        return Decoding(self.tokenizer, with_features)

    def _code(self, root: nn.Module, image: Tensor) -> AutoEncoderOutput:
        latent = self.tokenizer.encode(image)
        z, tokens, losses = self.tokenizer.code(latent)
        reconstruction, features = root(z, latent.mean, tokens)
        return AutoEncoderOutput(reconstruction, tokens, losses, features)


@VQTaskRegistry.register_()
class ImageReconstruction(OnFrozenTokenizer):
    """total = sum of weighted losses of D(z_q(x)) and x. One optimizer, ``tokenizer``, owns decoder and connector.

    ``tokenizer`` is a ``TokenizerWithDecoder``. Outside of training it works like any tokenizer: its tokens come from the
    frozen tokenizer, its images from the new decoder.
    """


@VQTaskRegistry.register_()
class AdversarialReconstruction(OnFrozenTokenizer, AdversarialTokenization):
    """``AdversarialTokenization`` with the encoder side frozen. Optimizers: ``tokenizer``, ``discriminator``.

    decoder, connector:  image losses + weight * generator_loss(D(x'))
    discriminator:       as in ``AdversarialTokenization``
    """

    evaluated_as: ClassVar[str | None] = 'ImageReconstruction'
