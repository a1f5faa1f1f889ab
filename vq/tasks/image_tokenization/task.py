"""Train a tokenizer to reproduce its input, with losses on images, latents and parameters, and those of its quantizer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar, NamedTuple, cast

import torch
from torch import Tensor, nn

from vq.core.bindings import Bound
from vq.core.errors import ConfigError
from vq.core.records import Batch, Latent, Losses, Outputs, to_float
from vq.interfaces import ActsOn, Loss, Task, Tokenizer
from vq.interfaces.losses import ImageTerm, LatentTerm, ParameterTerm
from vq.registries import VQTaskRegistry
from vq.tasks.counted import counted_codes
from vq.tasks.terms import TOTAL, Terms, check_whole, terms_of


class LatentOutput(NamedTuple):
    """What losses on the latent take, in plain tuples: see ``Predicted``."""

    mean: Tensor  # (B, C, h, w), like the others
    logvar: Tensor | None
    z: Tensor


class AutoEncoderOutput(NamedTuple):
    """The outputs of one forward of an autoencoder."""

    reconstruction: Tensor  # (B, 3, H, W)
    tokens: Tensor | None  # (B, *tokens.shape); None for a continuous tokenizer
    losses: dict[str, Tensor]  # of the quantizer, unweighted
    features: Tensor | None  # the input of the decoder's last layer, if the task needs it
    latent: LatentOutput | None = None  # if the task needs it


class AutoEncoding(nn.Module):
    """The root the optimizer owns: image (B, 3, H, W) float -> all outputs that training needs, in one forward."""

    def __init__(self, tokenizer: Tokenizer, with_features: bool = False, with_latent: bool = False) -> None:
        super().__init__()
        self.tokenizer, self.with_features, self.with_latent = tokenizer, with_features, with_latent

    def forward(self, image: Tensor) -> AutoEncoderOutput:
        tokenizer = self.tokenizer
        latent = tokenizer.encode(image)
        z, tokens, losses = tokenizer.code(latent)
        kept = LatentOutput(latent.mean, latent.logvar, z) if self.with_latent else None
        if not (self.with_features and tokenizer.training):
            return AutoEncoderOutput(tokenizer.decode(z), tokens, losses, None, kept)
        features = tokenizer.decoder_features(z)
        return AutoEncoderOutput(tokenizer.decoder.project(features), tokens, losses, features, kept)


@VQTaskRegistry.register_()
class ImageTokenization(Task):
    """total = sum of weighted ``losses`` + weighted quantizer losses. One optimizer, named ``tokenizer``.

    ``losses`` act on the image, on the latent, or on the parameters that the optimizer trains.
    """

    kind: ClassVar[str] = 'tokenizer'  # written into the spec of its runs
    takes: ClassVar[tuple[ActsOn, ...]] = ('image', 'latent', 'parameters')  # where its losses can act
    own_terms: ClassVar[dict[str, str]] = {}  # names of terms that are not in ``losses``, and what they are

    def __init__(self, tokenizer: Tokenizer, losses: dict[str, Loss]) -> None:
        super().__init__()
        if not tokenizer.can_decode:
            raise ConfigError(
                f'{type(tokenizer).__name__} makes no pixels, so it cannot be trained to reproduce images',
                'Train it with its own task, and a decoder for it with the image reconstruction task.',
            )
        self.tokenizer, self.losses = tokenizer, nn.ModuleDict(losses)
        taken = {**self.own_terms, **dict.fromkeys(tokenizer.loss_weights, 'a loss of the quantizer')}
        self.terms: Terms = terms_of(type(self).__name__, losses, self.takes, taken)
        self._roots: dict[str, nn.Module] = {'tokenizer': self._make_root()}  # a dict, so nn.Module does not register it twice
        self.outputs = Outputs()

    def _make_root(self, with_features: bool = False) -> nn.Module:
        """The module that the optimizer ``tokenizer`` owns."""
        return AutoEncoding(self.tokenizer, with_features, with_latent=bool(self.terms['latent']))

    def _code(self, root: nn.Module, image: Tensor) -> AutoEncoderOutput:
        """One forward through the root, whether a strategy wrapped it or not."""
        coded: AutoEncoderOutput = root(image)
        return coded

    @property
    def codebooks(self) -> tuple[int, ...]:
        """The sizes of the codebooks; empty for a continuous tokenizer."""
        return self.tokenizer.codebooks if self.tokenizer.can_tokenize else ()

    @property
    def counted_codes(self) -> Bound:
        """The ``codebook_size`` that metrics get."""
        return counted_codes(self.tokenizer)

    def roots(self) -> dict[str, nn.Module]:
        return dict(self._roots)

    def training_step(self, batch: Batch, roots: Mapping[str, nn.Module], step: int) -> Iterator[tuple[str, Losses]]:
        image = to_float(batch.image)
        coded = self._code(roots['tokenizer'], image)
        self.outputs = Outputs(coded.reconstruction.detach(), coded.tokens)
        yield 'tokenizer', self._collect(image, coded)

    def _collect(self, image: Tensor, coded: AutoEncoderOutput) -> Losses:
        losses = Losses()
        self._add_image_terms(losses, coded.reconstruction, image)
        self._add_other_terms(losses, coded)
        return losses

    def _add_image_terms(self, losses: Losses, reconstruction: Tensor, image: Tensor) -> None:
        for name, loss in self._at('image'):
            losses.add(name, cast(ImageTerm, loss)(reconstruction, image), loss.weight)

    def _add_other_terms(self, losses: Losses, coded: AutoEncoderOutput) -> None:
        """The losses of the quantizer, on the latent and on parameters: no image stands between them and what they train."""
        weights = self.tokenizer.loss_weights
        for name, value in coded.losses.items():
            losses.add(name, value, weights.get(name, 1.0))
        for name, loss in self._at('latent'):
            assert coded.latent is not None
            latent = Latent(coded.latent.mean, coded.latent.logvar)
            losses.add(name, cast(LatentTerm, loss)(latent, coded.latent.z), loss.weight)
        module = self._roots['tokenizer']
        check_whole(self.terms['parameters'], module)
        for name, loss in self._at('parameters'):
            losses.add(name, cast(ParameterTerm, loss)(module), loss.weight)

    def _at(self, place: ActsOn) -> Iterator[tuple[str, Loss]]:
        for name in self.terms.get(place, ()):
            loss = self.losses[name]
            assert isinstance(loss, Loss)
            yield name, loss

    @torch.no_grad()
    def validation_step(self, batch: Batch) -> Outputs:
        image = to_float(batch.image)
        coded = self._code(self._roots['tokenizer'], image)
        losses = self._collect(image, coded)
        # without weights: results of runs with different weights stay comparable, and ``total`` is what training minimizes
        return Outputs(coded.reconstruction, coded.tokens, {**losses.values, TOTAL: losses.total})

    def update(self, ok: Tensor | None = None) -> None:
        self.tokenizer.update(ok)
