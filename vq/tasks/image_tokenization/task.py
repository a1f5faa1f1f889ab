"""Train a tokenizer to reproduce its input, with losses on images, latents and parameters, and those of its quantizer."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import ClassVar, NamedTuple, cast

import torch
from torch import Tensor, nn

from vq.core.bindings import Bound
from vq.core.errors import ConfigError
from vq.core.records import Batch, Latent, Losses, Outputs, to_float
from vq.interfaces import ActsOn, HiddenLoss, Loss, Task, Tokenizer
from vq.interfaces.losses import HiddenTerm, ImageTerm, LatentTerm, ParameterTerm
from vq.registries import VQTaskRegistry
from vq.tasks.counted import counted_codes
from vq.tasks.hidden import Hidden, gradient_ratio, hidden_of
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
    hidden: dict[str, Tensor] | None = None  # by the names of the losses on hidden features, through their heads


class AutoEncoding(nn.Module):
    """The root the optimizer owns: image (B, 3, H, W) float -> all outputs that training needs, in one forward."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        with_features: bool = False,
        with_latent: bool = False,
        hidden: Hidden | None = None,
    ) -> None:
        super().__init__()
        self.tokenizer, self.with_features, self.with_latent, self.hidden = tokenizer, with_features, with_latent, hidden

    def forward(self, image: Tensor) -> AutoEncoderOutput:
        if self.hidden is None:
            return self._run(image)[0]
        with self.hidden.listening():
            coded, mean = self._run(image)
        return coded._replace(hidden=self.hidden((mean.shape[-2], mean.shape[-1]), mean))

    def _run(self, image: Tensor) -> tuple[AutoEncoderOutput, Tensor]:
        """All outputs but the hidden ones, and the output of the encoder."""
        tokenizer = self.tokenizer
        latent = tokenizer.encode(image)
        z, tokens, losses = tokenizer.code(latent)
        kept = LatentOutput(latent.mean, latent.logvar, z) if self.with_latent else None
        z = tokenizer.perturbed(z, latent, tokens)
        if not (self.with_features and tokenizer.training):
            return AutoEncoderOutput(tokenizer.decode(z), tokens, losses, None, kept), latent.mean
        features = tokenizer.decoder_features(z)
        return AutoEncoderOutput(tokenizer.decoder.project(features), tokens, losses, features, kept), latent.mean


@VQTaskRegistry.register_()
class ImageTokenization(Task):
    """total = sum of weighted ``losses`` + weighted quantizer losses. One optimizer, named ``tokenizer``.

    ``losses`` act on the image, on the latent, on hidden features, or on the parameters that the optimizer trains.
    """

    kind: ClassVar[str] = 'tokenizer'  # written into the spec of its runs
    takes: ClassVar[tuple[ActsOn, ...]] = ('image', 'latent', 'hidden', 'parameters')  # where its losses can act
    own_terms: ClassVar[dict[str, str]] = {}  # names of terms that are not in ``losses``, and what they are

    def __init__(self, tokenizer: Tokenizer, losses: dict[str, Loss]) -> None:
        super().__init__()
        self._check(tokenizer)
        self.tokenizer, self.losses = tokenizer, nn.ModuleDict(losses)
        taken = {**self.own_terms, **dict.fromkeys(tokenizer.loss_weights, 'a loss of the quantizer')}
        self.terms: Terms = terms_of(type(self).__name__, losses, self.takes, taken)
        # in a tuple, so that nn.Module does not register the heads of ``losses`` twice
        self._hidden = (hidden_of(self, losses, self.terms.get('hidden', ())),)
        if any(loss.adaptive for loss in self._hidden_losses()) and not self.terms['image']:
            raise ConfigError('an adaptive alignment needs a loss on the image to compare with', 'Set its adaptive to False.')
        self._roots: dict[str, nn.Module] = {'tokenizer': self._make_root()}  # a dict, so nn.Module does not register it twice
        self.outputs = Outputs()

    def _check(self, tokenizer: Tokenizer) -> None:
        """Raise if this task cannot train the tokenizer."""
        if not tokenizer.can_decode:
            raise ConfigError(
                f'{type(tokenizer).__name__} makes no pixels, so it cannot be trained to reproduce images',
                'Train it with FeatureTokenization, and a decoder for it with ImageReconstruction.',
            )

    def _make_root(self, with_features: bool = False) -> nn.Module:
        """The module that the optimizer ``tokenizer`` owns."""
        with_latent = bool(self.terms['latent']) or any(loss.adaptive for loss in self._hidden_losses())
        return AutoEncoding(self.tokenizer, with_features, with_latent, self._hidden[0])

    def _hidden_losses(self) -> list[HiddenLoss]:
        return [loss for _, loss in self._at('hidden') if isinstance(loss, HiddenLoss)]

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
        self._add_hidden_terms(losses, coded, image)
        self._add_other_terms(losses, coded.losses, coded.latent)
        return losses

    def _add_image_terms(self, losses: Losses, reconstruction: Tensor, image: Tensor) -> None:
        for name, loss in self._at('image'):
            losses.add(name, cast(ImageTerm, loss)(reconstruction, image), loss.weight)

    def _add_hidden_terms(
        self, losses: Losses, coded: AutoEncoderOutput, image: Tensor, gradient: Tensor | None = None
    ) -> None:
        """The losses on hidden features, after those on the image. ``gradient``: that of the image losses at the
        reconstruction, times ``scale_for`` it, if their values have none."""
        for name, loss in self._at('hidden'):
            assert coded.hidden is not None
            value, weight = cast(HiddenTerm, loss)(coded.hidden[name], image), loss.weight
            if cast(HiddenLoss, loss).adaptive and value.requires_grad:
                balanced = losses.notes[f'{name}_weight'] = weight * self._ratio(losses, coded, value, gradient)
                losses.add(name, value, balanced)
            else:
                losses.add(name, value, weight)

    def _add_other_terms(self, losses: Losses, of_quantizer: Mapping[str, Tensor], latent: LatentOutput | None) -> None:
        """The losses of the quantizer, on the latent and on parameters: no image stands between them and what they train."""
        weights = self.tokenizer.loss_weights
        for name, value in of_quantizer.items():
            losses.add(name, value, weights.get(name, 1.0))
        for name, loss in self._at('latent'):
            assert latent is not None
            losses.add(name, cast(LatentTerm, loss)(Latent(latent.mean, latent.logvar), latent.z), loss.weight)
        module = self._roots['tokenizer']
        check_whole(self.terms['parameters'], module)
        for name, loss in self._at('parameters'):
            losses.add(name, cast(ParameterTerm, loss)(module), loss.weight)

    def _ratio(self, losses: Losses, coded: AutoEncoderOutput, value: Tensor, gradient: Tensor | None) -> Tensor:
        """What an adaptive weight is multiplied by."""
        assert coded.latent is not None
        scale, reconstruction = scale_for(coded.reconstruction), coded.reconstruction
        if gradient is not None:
            return gradient_ratio(coded.latent.mean, reconstruction, gradient, value, scale)
        total = torch.stack([losses.values[name] * losses.weights[name] for name, _ in self._at('image')]).sum()
        return gradient_ratio(coded.latent.mean, total, torch.full_like(total, scale), value, scale)

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


def scale_for(reconstruction: Tensor) -> float:
    """A power of two to multiply gradients of means by: unscaled they underflow in fp16."""
    return float(2.0 ** round(math.log2(reconstruction.numel())))
