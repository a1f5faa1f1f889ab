"""Train a generator on the tokens of a frozen tokenizer, and draw with it."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vq.core.bindings import Bound, Source
from vq.core.conditions import Condition
from vq.core.config import plain
from vq.core.drawing import Drawn, Wanted
from vq.core.errors import ConfigError, UserError, listing
from vq.core.random import key_of
from vq.core.records import Batch, Losses, Outputs, Predicted, to_float
from vq.core.specs import in_words
from vq.encoders.frozen_tokenizer import FrozenTokenizer
from vq.interfaces import Encoder, Generator, Loss, Task, Tokenizer
from vq.interfaces.conditions import Asked, Kind
from vq.interfaces.drawing import Setting
from vq.registries import VQGuidanceRegistry, VQSamplerRegistry, VQTaskRegistry
from vq.sampling.streams import uniforms
from vq.tasks.asked import condition_of_classes
from vq.tasks.counted import counted_codes
from vq.tasks.hidden import Hidden, hidden_of
from vq.tasks.terms import terms_of

Sampler = Annotated[Callable[[Tensor, Tensor], Tensor], VQSamplerRegistry]
Guidance = Annotated[Callable[..., float], VQGuidanceRegistry]

PICTURES = ('generated', 'half_generated', 'teacher_forced')
SEED = 3407  # of draws in validation: the same at every checkpoint


class Watched(nn.Module):
    """The root of a generator with losses on its hidden features: (Predicted, name of the loss -> projected features)."""

    def __init__(self, generator: Generator, hidden: Hidden) -> None:
        super().__init__()
        self.generator, self.hidden = generator, hidden

    def forward(self, tokens: Tensor, condition: Condition | None) -> tuple[Predicted, dict[str, Tensor]]:
        with self.hidden.listening():
            predicted: Predicted = self.generator(tokens, condition)
        return predicted, self.hidden(self.generator.tokens.cells)


@VQTaskRegistry.register_()
class SequenceModeling(Task):
    """loss = cross entropy of the generator's logits and the tokens, over the positions it learns. Optimizer: ``generator``.

    - ``tokenizer``: a FrozenTokenizer; the generator learns its tokens. Batches of a ``TokenDataset`` contain tokens; images
      are tokenised on the fly. Checkpoints contain only the digest of the tokenizer's file.
    - ``sampler``, ``guidance``: how validation and ``vq.sample`` draw.
    - ``label_smoothing``: of the cross entropy.
    - ``losses``: more losses, on hidden features of the generator: see ``AlignmentLoss``. They need images.
    - ``draws``: pictures that validation draws for each image, in addition to the reconstruction from its own tokens.
      'generated': a new image of the same class. 'half_generated': a new image that keeps the first half of the tokens.
      'teacher_forced': each token is drawn from the logits of one forward on the true tokens. Labels are those of the
      validation split, with its balance of classes; ``vq.sample`` balances classes itself.

    ``cells`` and ``codebooks`` of the generator are taken from the tokenizer and its ``image_size``.
    """

    kind: ClassVar[str] = 'generator'  # written into the spec of its runs
    binds: ClassVar[dict[str, Source]] = {
        'generator.cells': 'tokenizer.tokens.cells',
        'generator.codebooks': 'tokenizer.tokens.codebooks',
    }

    def __init__(
        self,
        generator: Generator,
        tokenizer: Encoder,
        sampler: Sampler,
        guidance: Guidance,
        label_smoothing: float = 0.0,
        draws: tuple[str, ...] = PICTURES,
        losses: dict[str, Loss] | None = None,
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
        codes, learned = tokenizer.tokens.codebooks, generator.tokens.codebooks
        if codes != learned:
            raise ConfigError(
                f'the tokenizer has {in_words(codes)} codes, and the generator learns {in_words(learned)}',
                f'Set codebooks of the generator to {codes} (and the vocabulary of its network).',
            )
        self.generator, self.tokenizer = generator, tokenizer
        self.sampler, self.guidance, self.label_smoothing, self.draws = sampler, guidance, label_smoothing, tuple(draws)
        self.losses = nn.ModuleDict(losses or {})
        terms = terms_of(type(self).__name__, losses or {}, ('hidden',), {'cross_entropy': 'that of the tokens'})
        hidden = hidden_of(self, losses or {}, terms['hidden'])
        root = generator if hidden is None else Watched(generator, hidden)
        self._roots: dict[str, nn.Module] = {'generator': root}  # in a dict, so that nn.Module does not register it twice
        self.outputs = Outputs()

    @property
    def codes(self) -> Tokenizer:
        """The tokenizer itself."""
        return self.tokenizer.tokenizer

    @property
    def codebooks(self) -> tuple[int, ...]:
        return self.codes.codebooks

    @property
    def counted_codes(self) -> Bound:
        """The ``codebook_size`` that metrics get."""
        return counted_codes(self.codes, together=True)

    def roots(self) -> dict[str, nn.Module]:
        return dict(self._roots)

    def tokens_of(self, batch: Batch) -> Tensor:
        """The tokens of a batch, (B, *tokens.shape): its own, or those of its images."""
        tokens = self.codes.tokenize(to_float(batch.image)) if batch.tokens is None else batch.tokens
        if tuple(tokens.shape[1:]) != self.generator.tokens.shape:
            raise ConfigError(
                f'images have tokens of the shape {tuple(tokens.shape[1:])}, and the generator learns '
                f'{self.generator.tokens.shape}',
                "Set the generator's cells, or the size of the images.",
            )
        return tokens

    def training_step(self, batch: Batch, roots: Mapping[str, nn.Module], step: int) -> Iterator[tuple[str, Losses]]:
        tokens = self.tokens_of(batch)
        predicted, hidden = self._predict(roots['generator'], tokens, self._condition(batch))
        self.outputs = Outputs(tokens=tokens)
        losses = Losses()
        losses.add('cross_entropy', self.loss(predicted))
        for name, value in self._of_hidden(hidden, batch).items():
            losses.add(name, value, self.losses[name].weight)  # type: ignore[arg-type]
        yield 'generator', losses

    def _predict(self, root: nn.Module, tokens: Tensor, condition: Condition | None) -> tuple[Predicted, dict[str, Tensor]]:
        """The output of the root, and features inside of it for the losses that act there."""
        found = root(tokens, condition)
        return (found, {}) if isinstance(found, Predicted) else found

    def _of_hidden(self, hidden: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """The values of the losses on hidden features."""
        image = to_float(batch.image) if hidden else None
        return {name: self.losses[name](features, image) for name, features in hidden.items()}

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

    def _condition(self, batch: Batch) -> Condition | None:
        if not self.generator.classes:
            return None
        if batch.category is None:
            raise ConfigError(
                f'the generator learns {self.generator.classes} classes, and this dataset gives none',
                'Take a dataset with classes, or set classes of the generator to 0.',
            )
        return Condition(batch.category)

    @torch.no_grad()
    def validation_step(self, batch: Batch) -> Outputs:
        tokens, condition = self.tokens_of(batch), self._condition(batch)
        predicted, hidden = self._predict(self._roots['generator'], tokens, condition)
        found = Outputs(tokens=tokens, predicted=predicted, losses={'cross_entropy': self.loss(predicted)})
        if batch.image is not None:
            found.losses |= self._of_hidden(hidden, batch)
        ids = [key_of(name) for name in batch.id]
        if self.codes.can_decode:
            found.reconstruction = self.codes.detokenize(tokens)
            for name in self.draws:
                drawn = self._draw(name, tokens, predicted, Wanted(ids, SEED, condition))
                found.pictures[name] = self.codes.detokenize(drawn)
        return found

    def _draw(self, name: str, tokens: Tensor, predicted: Predicted, wanted: Wanted) -> Tensor:
        if name == 'generated':
            return self.generate(wanted)
        if name == 'half_generated':
            wanted.given, wanted.keep = tokens, first_half(self.generator.tokens.shape, tokens.device)
            return self.generate(wanted)
        numbers = uniforms(wanted.seed, wanted.ids, predicted.targets.shape[1], purpose='teacher').to(tokens.device)
        drawn = self.sampler(self.generator.drawable(predicted).float(), numbers).view_as(predicted.targets)
        if predicted.mask is not None:  # keep the tokens that were not masked
            drawn = torch.where(predicted.mask, drawn, predicted.targets)
        return drawn.clamp(min=0).view_as(tokens)

    # drawing: see vq/interfaces/drawing.py

    @property
    def asks(self) -> Kind | None:
        return 'classes' if self.generator.classes else None

    @property
    def classes(self) -> int:
        return self.generator.classes

    def draw(self, wanted: Wanted) -> Drawn:
        tokens = self.generate(wanted)
        return Drawn(tokens, decode=functools.partial(self.codes.detokenize, tokens) if self.codes.can_decode else None)

    def condition(self, asked: Asked, places: Sequence[int], device: torch.device) -> Condition | None:
        return condition_of_classes(asked, self.classes, places, device)

    @classmethod
    def settings(cls, config: Mapping[str, Any]) -> dict[str, Setting]:
        sampler, guidance = plain(config['sampler']), plain(config['guidance'])
        kind, own = sampler['type'].split('.')[-1], {'temperature': 1.0, **sampler}
        found = {name: Setting(own.get(name) if kind == 'Multinomial' else None) for name in SETTINGS}
        found['greedy'] = Setting(kind == 'Greedy')
        if config['generator'].get('classes') != 0:
            constant = guidance['type'].split('.')[-1] == 'ConstantGuidance'
            found['guidance'] = Setting(float(guidance.get('scale', 1.0)) if constant else None)
        return found

    @classmethod
    def set_drawing(cls, config: dict[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
        sampler, scale = _with_settings(config['sampler'], settings), settings.get('guidance')
        if scale not in (None, 1) and config['generator'].get('classes') == 0:
            raise UserError(
                f'guidance is {scale:g}, and the generator has no classes to be guided by',
                'Leave it out. Guidance needs a generator of images with classes: one folder for each.',
            )
        config['sampler'] = sampler
        if scale is not None:
            config['guidance'] = {'type': 'ConstantGuidance', 'scale': scale}
        return {'sampler': plain(config['sampler']), 'guidance': plain(config['guidance'])}

    def drawing(self, settings: Mapping[str, Any], described: Mapping[str, Any] | None = None) -> Self:
        changed = copy.copy(self)
        if settings.keys() - {'guidance'}:
            before = {} if described is None else described['sampler']
            changed.sampler = VQSamplerRegistry.build(_with_settings(before, settings), 'sampler')
        if settings.get('guidance') is not None:
            changed.guidance = VQGuidanceRegistry.build(
                {'type': 'ConstantGuidance', 'scale': settings['guidance']}, 'guidance'
            )
        return changed

    @torch.no_grad()
    def generate(self, wanted: Wanted) -> Tensor:
        """Tokens (B, *tokens.shape)."""
        return self.generator.generate(wanted, self.sampler, self.guidance)

    def forward_once(self, batch: Batch) -> None:
        """One pass over all positions. Tokens are zeros: the tokenizer does not run."""
        tokens = torch.zeros((len(batch), *self.generator.tokens.shape), dtype=torch.int64, device=batch.key.device)
        category = torch.zeros(len(batch), dtype=torch.int64, device=batch.key.device)
        self.generator(tokens, Condition(category) if self.generator.classes else None)


SETTINGS = ('temperature', 'top_k', 'top_p', 'min_p')  # of the sampler


def _with_settings(sampler: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """The config of a sampler with other settings."""
    unknown = [name for name in settings if name not in (*SETTINGS, 'greedy', 'guidance')]
    if unknown:
        raise UserError(
            f"generators of tokens have no setting '{unknown[0]}'", f'They have: {listing((*SETTINGS, "greedy", "guidance"))}.'
        )
    given = {name: settings[name] for name in SETTINGS if settings.get(name) is not None}
    if settings.get('greedy'):
        if given:
            raise UserError(f'greedy drawing does not use {", ".join(given)}', 'Leave one of the two out.')
        return {'type': 'Greedy'}
    if not given and sampler:
        return dict(sampler)
    before = sampler if str(sampler.get('type', '')).split('.')[-1] == 'Multinomial' else {}
    return {**before, 'type': 'Multinomial', **given}


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
