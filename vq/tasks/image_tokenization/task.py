"""Train a tokenizer to reproduce its input, with pixel losses and the losses of its quantizer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from vq.core.bindings import Bound
from vq.core.errors import ConfigError
from vq.core.records import Batch, Losses, Outputs, to_float
from vq.interfaces import Loss, Task, Tokenizer
from vq.registries import VQTaskRegistry
from vq.tasks.counted import counted_codes


class AutoEncoderOutput(NamedTuple):
    """The outputs of one forward of an autoencoder."""

    reconstruction: Tensor  # (B, 3, H, W)
    tokens: Tensor | None  # (B, *tokens.shape); None for a continuous tokenizer
    losses: dict[str, Tensor]  # of the quantizer, unweighted
    features: Tensor | None  # the input of the decoder's last layer, if the task needs it


class AutoEncoding(nn.Module):
    """The root the optimizer owns: image (B, 3, H, W) float -> all outputs that training needs, in one forward."""

    def __init__(self, tokenizer: Tokenizer, with_features: bool = False) -> None:
        super().__init__()
        self.tokenizer, self.with_features = tokenizer, with_features

    def forward(self, image: Tensor) -> AutoEncoderOutput:
        tokenizer = self.tokenizer
        z, tokens, losses = tokenizer.code(tokenizer.encode(image))
        if not (self.with_features and tokenizer.training):
            return AutoEncoderOutput(tokenizer.decode(z), tokens, losses, None)
        features = tokenizer.decoder_features(z)
        return AutoEncoderOutput(tokenizer.decoder.project(features), tokens, losses, features)


@VQTaskRegistry.register_()
class ImageTokenization(Task):
    """total = sum of weighted pixel losses + weighted quantizer losses. One optimizer, named ``tokenizer``."""

    kind: ClassVar[str] = 'tokenizer'  # written into the spec of its runs

    def __init__(self, tokenizer: Tokenizer, losses: dict[str, Loss]) -> None:
        super().__init__()
        if not tokenizer.can_decode:
            raise ConfigError(
                f'{type(tokenizer).__name__} makes no pixels, so it cannot be trained to reproduce images',
                'Train it with its own task, and a decoder for it with the image reconstruction task.',
            )
        self.tokenizer, self.losses = tokenizer, nn.ModuleDict(losses)
        self._roots: dict[str, nn.Module] = {'tokenizer': self._make_root()}  # a dict, so nn.Module does not register it twice
        self.outputs = Outputs()

    def _make_root(self, with_features: bool = False) -> nn.Module:
        """The module that the optimizer ``tokenizer`` owns."""
        return AutoEncoding(self.tokenizer, with_features)

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
        self._add_pixel_losses(losses, coded.reconstruction, image)
        self._add_quantizer_losses(losses, coded)
        return losses

    def _add_pixel_losses(self, losses: Losses, reconstruction: Tensor, image: Tensor) -> None:
        for name, loss in self.losses.items():
            assert isinstance(loss, Loss)
            losses.add(name, loss(reconstruction, image), loss.weight)

    def _add_quantizer_losses(self, losses: Losses, coded: AutoEncoderOutput) -> None:
        weights = self.tokenizer.loss_weights
        for name, value in coded.losses.items():
            losses.add(name, value, weights.get(name, 1.0))

    @torch.no_grad()
    def validation_step(self, batch: Batch) -> Outputs:
        image = to_float(batch.image)
        coded = self._code(self._roots['tokenizer'], image)
        losses = self._collect(image, coded)
        return Outputs(coded.reconstruction, coded.tokens, {**losses.values, 'total': losses.total})

    def update(self, ok: Tensor | None = None) -> None:
        self.tokenizer.update(ok)
