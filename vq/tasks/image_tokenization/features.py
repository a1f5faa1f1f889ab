"""Train a tokenizer whose codes live in the feature space of a frozen model: VQ-KD with a teacher, Cluster without."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar, NamedTuple, cast

import torch
from torch import Tensor, nn

from vq.core.errors import ConfigError
from vq.core.records import Batch, Losses, Outputs, to_float
from vq.interfaces import ActsOn, Layers, Loss, Teacher, Tokenizer
from vq.interfaces.losses import FeatureTerm
from vq.registries import VQTaskRegistry
from vq.tasks.image_tokenization.task import ImageTokenization, LatentOutput
from vq.tasks.terms import TOTAL
from vq.tokenizers.encoding import EncodingTokenizer
from vq.tokenizers.vqkd import VQKD


class FeatureOutput(NamedTuple):
    """The outputs of one forward."""

    prediction: Tensor | None  # of the teacher's features (B, C, h, w); None without a feature decoder
    tokens: Tensor  # (B, *tokens.shape)
    losses: dict[str, Tensor]  # of the quantizer, unweighted
    latent: LatentOutput | None = None  # if the task needs it


class FeatureCoding(nn.Module):
    """The root the optimizer owns: all trained parts. A frozen encoder stays outside, and its output is the input."""

    def __init__(self, tokenizer: EncodingTokenizer, with_latent: bool = False) -> None:
        super().__init__()
        self.frozen = not any(parameter.requires_grad for parameter in tokenizer.encoder.parameters())
        self.with_latent = with_latent
        self._whole = (tokenizer,)  # in a tuple, so that nn.Module does not register it
        for name, part in tokenizer.named_children():
            if not (name == 'encoder' and self.frozen):
                self.add_module(name, part)

    def forward(self, given: Tensor) -> FeatureOutput:
        """The image (B, 3, H, W), or the features of a frozen encoder (B, C, h, w)."""
        (tokenizer,) = self._whole
        latent = tokenizer.connect(given) if self.frozen else tokenizer.encode(given)
        quantized = tokenizer.quantize(latent)
        kept = LatentOutput(latent.mean, latent.logvar, quantized.z) if self.with_latent else None
        prediction = None
        if isinstance(tokenizer, VQKD) and tokenizer.feature_decoder is not None:
            prediction = tokenizer.predict(tokenizer.perturbed(quantized.z, latent, quantized.tokens))
        return FeatureOutput(prediction, quantized.tokens, quantized.losses, kept)


@VQTaskRegistry.register_()
class FeatureTokenization(ImageTokenization):
    """total = sum of weighted losses(F(z_q(x)), T(x)) + weighted quantizer losses. One optimizer, named ``tokenizer``.

    T is the frozen ``teacher``: the patch map of ``teacher_layers``, of the image resized to one patch per cell of the
    tokenizer. F is the ``feature_decoder`` of the tokenizer. ``losses`` act on both maps, on the latent, or on the parameters
    that the optimizer trains. Without teacher and losses the quantizer's own losses are all: a ``Cluster``.

    The teacher runs once a step, without gradients, in the precision of the strategy. A frozen encoder runs without gradients,
    too, outside of the module that the strategy wraps.
    """

    takes: ClassVar[tuple[ActsOn, ...]] = ('features', 'latent', 'parameters')

    def __init__(
        self,
        tokenizer: Tokenizer,
        losses: dict[str, Loss] | None = None,
        teacher: Teacher | None = None,
        teacher_layers: Layers = 'last',
    ) -> None:
        super().__init__(tokenizer, losses or {})
        self.teacher, self.teacher_layers = teacher, teacher_layers
        self._check_teacher()

    def _check(self, tokenizer: Tokenizer) -> None:
        if not isinstance(tokenizer, EncodingTokenizer) or tokenizer.can_decode:
            raise ConfigError(
                f'FeatureTokenization trains tokenizers without a pixel decoder, and was given a {type(tokenizer).__name__}',
                "Give a VQKD or a Cluster; a tokenizer with a decoder is trained by 'ImageTokenization'.",
            )

    def _check_teacher(self) -> None:
        """Raise unless teacher, losses on features, and feature decoder are all there and fit, or all absent."""
        decoder = self.tokenizer.feature_decoder if isinstance(self.tokenizer, VQKD) else None
        there = {'teacher': self.teacher, 'loss on features': self.terms['features'] or None, 'feature_decoder': decoder}
        missing = [name for name, part in there.items() if part is None]
        if missing and len(missing) < len(there):
            raise ConfigError(
                f'{type(self).__name__} with a {type(self.tokenizer).__name__} has no {" and no ".join(missing)}',
                'To distil features give a VQKD with a feature_decoder, a teacher, and a loss such as CosineLoss; for codes '
                'alone leave all three out.',
            )
        if self.teacher is None or decoder is None:
            return
        channels = self.teacher.channels(self.teacher_layers)
        if decoder.out_channels != channels:
            raise ConfigError(
                f'the feature decoder has {decoder.out_channels} channels, and the layer {self.teacher_layers!r} of '
                f'{type(self.teacher).__name__} has {channels}',
                f'Set tokenizer.feature_decoder.out_channels to {channels}.',
            )

    def _make_root(self, with_features: bool = False) -> nn.Module:
        assert isinstance(self.tokenizer, EncodingTokenizer)
        return FeatureCoding(self.tokenizer, with_latent=bool(self.terms['latent']))

    def _losses(self, root: nn.Module, image: Tensor) -> tuple[FeatureOutput, Losses]:
        """One forward through the root, whether a strategy wrapped it or not, and its losses."""
        coded: FeatureOutput = root(self._seen(image))
        losses = Losses()
        if self.teacher is not None:
            assert coded.prediction is not None
            height, width = coded.prediction.shape[-2:]
            target = self.teacher.target(image, (height, width), self.teacher_layers)
            for name, loss in self._at('features'):
                losses.add(name, cast(FeatureTerm, loss)(coded.prediction, target), loss.weight)
        self._add_other_terms(losses, coded.losses, coded.latent)
        return coded, losses

    def _seen(self, image: Tensor) -> Tensor:
        """The input of the root."""
        root, tokenizer = self._roots['tokenizer'], self.tokenizer
        assert isinstance(root, FeatureCoding) and isinstance(tokenizer, EncodingTokenizer)
        if not root.frozen:
            return image
        with torch.no_grad():
            features: Tensor = tokenizer.encoder(image)
        return features

    def training_step(self, batch: Batch, roots: Mapping[str, nn.Module], step: int) -> Iterator[tuple[str, Losses]]:
        coded, losses = self._losses(roots['tokenizer'], to_float(batch.image))
        self.outputs = Outputs(tokens=coded.tokens)
        yield 'tokenizer', losses

    @torch.no_grad()
    def validation_step(self, batch: Batch) -> Outputs:
        coded, losses = self._losses(self._roots['tokenizer'], to_float(batch.image))
        return Outputs(tokens=coded.tokens, losses={**losses.values, TOTAL: losses.total})
