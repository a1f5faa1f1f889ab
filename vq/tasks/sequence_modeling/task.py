"""Train a generator on the tokens of a frozen tokenizer, and draw with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vq.core.bindings import Bound, Source
from vq.core.errors import ConfigError
from vq.core.random import key_of
from vq.core.records import Batch, Losses, Outputs, Predicted, SampleRequest, to_float
from vq.encoders.frozen_tokenizer import FrozenTokenizer, besides_digests
from vq.interfaces import Encoder, Generator, Task, Tokenizer
from vq.registries import VQGuidanceRegistry, VQSamplerRegistry, VQTaskRegistry
from vq.sampling.streams import uniforms
from vq.tasks.counted import counted_codes

Sampler = Annotated[Callable[[Tensor, Tensor], Tensor], VQSamplerRegistry]
Guidance = Annotated[Callable[..., float], VQGuidanceRegistry]

PICTURES = ('generated', 'half_generated', 'teacher_forced')
SEED = 3407  # of draws in validation: the same at every checkpoint


@VQTaskRegistry.register_()
class SequenceModeling(Task):
    """loss = cross entropy of the generator's logits and the tokens, over the positions it learns. Optimizer: ``generator``.

    - ``tokenizer``: a FrozenTokenizer; the generator learns its tokens. Batches of a ``TokenDataset`` contain tokens; images
      are tokenised on the fly. Checkpoints contain only the digest of the tokenizer's file.
    - ``sampler``, ``guidance``: how validation and ``vq.sample`` draw.
    - ``label_smoothing``: of the cross entropy.
    - ``draws``: pictures that validation draws for each image, in addition to the reconstruction from its own tokens.
      'generated': a new image of the same class. 'half_generated': a new image that keeps the first half of the tokens.
      'teacher_forced': each token is drawn from the logits of one forward on the true tokens. Labels are those of the
      validation split, with its balance of classes; ``vq.sample`` balances classes itself.

    ``token_shape``, ``codebook_size`` and ``codebook_sizes`` of the generator are taken from the tokenizer and its
    ``image_size``.
    """

    kind: ClassVar[str] = 'generator'  # written into the spec of its runs
    binds: ClassVar[dict[str, Source]] = {
        'generator.token_shape': 'tokenizer.token_shape',
        'generator.codebook_size': 'tokenizer.codebook_size',
        'generator.codebook_sizes': 'tokenizer.codebook_sizes',
    }

    def __init__(
        self,
        generator: Generator,
        tokenizer: Encoder,
        sampler: Sampler,
        guidance: Guidance,
        label_smoothing: float = 0.0,
        draws: tuple[str, ...] = PICTURES,
    ) -> None:
        super().__init__()
        if not isinstance(tokenizer, FrozenTokenizer):
            raise ConfigError(
                f'tokenizer is a {type(tokenizer).__name__}',
                "Write tokenizer=dict(type='FrozenTokenizer', tokenizer=..., weights=...).",
            )
        if set(draws) - set(PICTURES) or not 0 <= label_smoothing < 1:
            raise ConfigError(
                f'draws is {tuple(draws)} and label_smoothing {label_smoothing}',
                f'Draw any of {", ".join(PICTURES)}; smoothing is at least 0 and below 1.',
            )
        codes = tokenizer.tokenizer.codebook_size
        if codes != generator.codebook_size:
            raise ConfigError(
                f'the tokenizer has {codes} codes, and the generator learns {generator.codebook_size}',
                f'Set codebook_size of the generator to {codes} (and the vocabulary of its network).',
            )
        self.generator, self.tokenizer = generator, tokenizer
        self.sampler, self.guidance, self.label_smoothing, self.draws = sampler, guidance, label_smoothing, tuple(draws)
        self._roots: dict[str, nn.Module] = {'generator': generator}  # in a dict, so that nn.Module does not register it twice
        self.outputs = Outputs()

    @property
    def codes(self) -> Tokenizer:
        """The tokenizer itself."""
        return self.tokenizer.tokenizer

    @property
    def codebook_size(self) -> int:
        return self.codes.codebook_size

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        return self.codes.codebook_sizes

    @property
    def counted_codes(self) -> Bound:
        """The ``codebook_size`` that metrics get."""
        return counted_codes(self.codes, together=True)

    def roots(self) -> dict[str, nn.Module]:
        return dict(self._roots)

    def tokens_of(self, batch: Batch) -> Tensor:
        """The tokens of a batch, (B, *token_shape): its own, or those of its images."""
        tokens = self.codes.tokenize(to_float(batch.image)) if batch.tokens is None else batch.tokens
        if tuple(tokens.shape[1:]) != self.generator.token_shape:
            raise ConfigError(
                f'images have tokens of the shape {tuple(tokens.shape[1:])}, and the generator learns '
                f'{self.generator.token_shape}',
                "Set the generator's token_shape, or the size of the images.",
            )
        return tokens

    def training_step(self, batch: Batch, roots: Mapping[str, nn.Module], step: int) -> Iterator[tuple[str, Losses]]:
        tokens = self.tokens_of(batch)
        predicted: Predicted = roots['generator'](tokens, self._category(batch))
        self.outputs = Outputs(tokens=tokens)
        losses = Losses()
        losses.add('cross_entropy', self.loss(predicted))
        yield 'generator', losses

    def loss(self, predicted: Predicted) -> Tensor:
        """Mean cross entropy over the learned positions, fp32."""
        smoothing = self.label_smoothing
        flat = F.cross_entropy(
            predicted.logits.flatten(0, 1).float(),
            predicted.targets.flatten(),
            label_smoothing=smoothing,
            reduction='mean' if predicted.mask is None else 'none',
        )
        if predicted.mask is None:
            return flat
        mask = predicted.mask.flatten().to(flat.dtype)
        return (flat * mask).sum() / mask.sum().clamp(min=1)

    def _category(self, batch: Batch) -> Tensor | None:
        if not self.generator.classes:
            return None
        if batch.category is None:
            raise ConfigError(
                f'the generator learns {self.generator.classes} classes, and this dataset gives none',
                'Take a dataset with classes, or set classes of the generator to 0.',
            )
        return batch.category

    @torch.no_grad()
    def validation_step(self, batch: Batch) -> Outputs:
        tokens, category = self.tokens_of(batch), self._category(batch)
        predicted: Predicted = self._roots['generator'](tokens, category)
        found = Outputs(tokens=tokens, predicted=predicted, losses={'cross_entropy': self.loss(predicted)})
        ids = [key_of(name) for name in batch.id]
        if self.codes.can_decode:
            found.reconstruction = self.codes.detokenize(tokens)
            for name in self.draws:
                drawn = self._draw(name, tokens, predicted, SampleRequest(ids, SEED, category))
                found.pictures[name] = self.codes.detokenize(drawn)
        return found

    def _draw(self, name: str, tokens: Tensor, predicted: Predicted, request: SampleRequest) -> Tensor:
        if name == 'generated':
            return self.generate(request)
        if name == 'half_generated':
            request.given, request.keep = tokens, first_half(self.generator.token_shape, tokens.device)
            return self.generate(request)
        numbers = uniforms(request.seed, request.ids, predicted.targets.shape[1], purpose='teacher').to(tokens.device)
        drawn = self.sampler(self.generator.drawable(predicted).float(), numbers).view_as(predicted.targets)
        if predicted.mask is not None:  # keep the tokens that were not masked
            drawn = torch.where(predicted.mask, drawn, predicted.targets)
        return drawn.clamp(min=0).view_as(tokens)

    @torch.no_grad()
    def generate(self, request: SampleRequest) -> Tensor:
        """Tokens (B, *token_shape)."""
        return self.generator.generate(request, self.sampler, self.guidance)

    def forward_once(self, batch: Batch) -> None:
        """One pass over all positions. Tokens are zeros: the tokenizer does not run."""
        tokens = torch.zeros((len(batch), *self.generator.token_shape), dtype=torch.int64, device=batch.key.device)
        category = torch.zeros(len(batch), dtype=torch.int64, device=batch.key.device)
        self.generator(tokens, category if self.generator.classes else None)

    def frozen_prefixes(self) -> tuple[str, ...]:
        return besides_digests(self, super().frozen_prefixes())


def first_half(shape: tuple[int, ...], device: torch.device) -> Tensor:
    """bool (*shape): the first half of the cells in raster order; these are whole rows if the number of rows is even."""
    cells = torch.arange(_count(shape[:2]), device=device) < (_count(shape[:2]) + 1) // 2
    keep = cells.view(shape[:2]) if len(shape) > 1 else cells
    return keep[(...,) + (None,) * (len(shape) - keep.ndim)].expand(shape).clone()


def _count(shape: tuple[int, ...]) -> int:
    total = 1
    for size in shape:
        total *= size
    return total
