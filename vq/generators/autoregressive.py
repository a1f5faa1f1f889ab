"""Autoregressive generation: p(tokens | class) = prod_t p(token t | class, tokens before t)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from vq.core.bindings import Bound, Source
from vq.core.conditions import Condition
from vq.core.drawing import Wanted
from vq.core.errors import ConfigError, RunFailure, UserError
from vq.core.records import Predicted
from vq.core.specs import TokenSpec
from vq.generators.decoding import Decoding
from vq.generators.segments import Segments
from vq.interfaces import CausalNetwork, Generator
from vq.registries import VQGeneratorRegistry
from vq.sampling.guidance import guided
from vq.sampling.streams import uniforms


def vocabulary_of(settings: Mapping[str, Any]) -> int:
    """The number of ids of the network: tokens of all codebooks, and classes in a joint vocabulary."""
    tokens: int = sum(settings['codebooks'])
    return tokens + (settings['classes'] + (settings['label_drop'] > 0) if settings['vocabulary'] == 'joint' else 0)


def length_of(settings: Mapping[str, Any]) -> Bound | None:
    """The number of positions of the network; None if its grid determines the number."""
    if settings['network'].get('grid') is not None or grid_of(settings) is not None:
        return None
    positions = TokenSpec(settings['cells'], settings['codebooks']).count
    return Bound(positions, lambda given: given >= positions, f'{positions} or more')


def grid_of(settings: Mapping[str, Any]) -> Bound | None:
    """The grid of rotary positions, if the config has ``rope='grid'`` and tokens have two axes."""
    one_each = len(settings['cells']) == 2 and len(settings['codebooks']) == 1
    wanted = settings['network'].get('rope') == 'grid' and one_each
    return Bound(tuple(settings['cells']), lambda given: True) if wanted else None


def prefix_of(settings: Mapping[str, Any]) -> Bound | None:
    """The number of positions before the grid: one, the class."""
    return None if grid_of(settings) is None else Bound(1, lambda given: True)


@VQGeneratorRegistry.register_()
class Autoregressive(Generator):
    """The sequence is a class, then the tokens of its image in raster order, those of a cell one after the other.

    - ``vocabulary='prefix'``: the generator embeds the class, and the network's vocabulary has only image tokens. Without
      classes, the sequence starts with a learned vector.
    - ``vocabulary='joint'``: the network's ids are classes first, then image tokens, and the network embeds both.
    - ``label_drop``: in training each label becomes the null class with this probability; guidance needs the null class. Its
      number is ``classes``. A joint vocabulary has it only if ``label_drop`` is above 0.
    - ``cells``, ``codebooks``: those of the tokens. Each codebook has its own segment of the vocabulary.
    - ``predicts='segment'``: logits are over the tokens that a position can hold. ``'vocabulary'``: logits are over all ids
      and targets are ids, so the loss also teaches which ids a position can hold, as in a language model.

    ``generate`` draws only tokens that the position can hold, whatever ``predicts`` is.

    ``vocabulary`` and ``length`` of the network are derived from these settings, with ``rope='grid'`` also its ``grid`` and
    ``prefix``. A longer network is accepted.
    """

    network: CausalNetwork
    binds: ClassVar[dict[str, Source]] = {
        'network.vocabulary': vocabulary_of,
        'network.length': length_of,
        'network.grid': grid_of,
        'network.prefix': prefix_of,
    }

    def __init__(
        self,
        network: CausalNetwork,
        cells: tuple[int, ...],
        codebooks: tuple[int, ...],
        classes: int = 0,
        vocabulary: Literal['prefix', 'joint'] = 'prefix',
        label_drop: float = 0.1,
        predicts: Literal['segment', 'vocabulary'] = 'segment',
    ) -> None:
        super().__init__()
        self.tokens = TokenSpec(tuple(cells), tuple(codebooks))
        if vocabulary not in ('prefix', 'joint'):
            raise ConfigError(f"vocabulary is '{vocabulary}'", "It is 'prefix' or 'joint'.")
        if predicts not in ('segment', 'vocabulary'):
            raise ConfigError(f"predicts is '{predicts}'", "It is 'segment' or 'vocabulary'.")
        if not 0 <= label_drop < 1:
            raise ConfigError(f'label_drop is {label_drop}', 'It is a probability below 1.')
        if vocabulary == 'joint' and not classes:
            raise ConfigError('a joint vocabulary needs classes', "Set classes=..., or vocabulary='prefix'.")
        self.classes, self.label_drop, self.vocabulary, self.predicts = classes, label_drop, vocabulary, predicts
        self.joint = vocabulary == 'joint'
        self.has_null = classes > 0 and label_drop > 0
        self.positions = self.tokens.count
        self.segments = Segments(self.tokens.codebooks, classes + self.has_null if self.joint else 0)
        if network.vocabulary != self.segments.end or network.length < self.positions:
            raise ConfigError(
                f'{type(network).__name__} has a vocabulary of {network.vocabulary} and {network.length} positions; '
                f'a vocabulary of {self.segments.end} and at least {self.positions} positions are needed',
                f'Set vocabulary={self.segments.end} and a length of at least {self.positions} '
                '(the start and all tokens but the last).',
            )
        self.network = network
        if not self.joint:
            if classes:
                self.class_embedding = nn.Embedding(classes + 1, network.dim)
            else:
                self.start = nn.Parameter(torch.empty(network.dim))
            self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw the start vector or class embeddings from N(0, 0.02). The network resets its own parameters.

        Called again after a move off the meta device.
        """
        if not self.joint:
            nn.init.normal_(self.class_embedding.weight if self.classes else self.start, std=0.02)

    # training

    def forward(self, tokens: Tensor, condition: Condition | None) -> Predicted:
        flat = tokens.flatten(1)  # (B, L)
        ids = self.segments.ids(flat)
        start = self.start_of(self.dropped(condition, len(flat), flat.device))
        logits = self.network(torch.cat([start, self.network.embed(ids[:, :-1])], 1))  # (B, L, vocabulary)
        if self.predicts == 'vocabulary':
            return Predicted(logits, ids)
        return Predicted(self.segments.select(logits), self.segments.targets(flat))

    def drawable(self, predicted: Predicted) -> Tensor:
        return self.segments.select(predicted.logits) if self.predicts == 'vocabulary' else predicted.logits

    def dropped(self, condition: Condition | None, rows: int, device: torch.device) -> Tensor:
        """Labels (B,); rows without a condition, and in training some others, get the null class."""
        if not self.classes:
            return torch.zeros(rows, dtype=torch.int64, device=device)
        category = None if condition is None else condition.category
        if condition is None or category is None:
            return self.null(rows, device)
        if condition.null is not None:
            category = torch.where(condition.null, self.null(rows, device), category)
        if self.training and self.has_null:
            return torch.where(torch.rand(rows, device=device) < self.label_drop, self.classes, category)
        return category

    def null(self, rows: int, device: torch.device) -> Tensor:
        """The null class (B,), for images without a class."""
        if not self.classes:
            raise UserError('guidance needs classes, and this generator has none', 'Set the scale of the guidance to 1.')
        if not self.has_null:
            raise UserError(
                'this generator was trained with the class of every image, and cannot draw without one',
                'Give classes and no guidance (scale 1), or train with label_drop above 0.',
            )
        return torch.full((rows,), self.classes, device=device)

    def start_of(self, label: Tensor) -> Tensor:
        """Labels (B,) -> embeddings of position 0, (B, 1, dim)."""
        if self.joint:
            return self.network.embed(label[:, None])
        if self.classes:
            embedded: Tensor = self.class_embedding(label[:, None])
            return embedded
        return self.start.expand(len(label), 1, -1)

    # drawing

    def generate(self, wanted: Wanted, sampler: Callable[[Tensor, Tensor], Tensor], guidance: Callable[..., float]) -> Tensor:
        """One step of the network per drawn token. Kept tokens enter with the step of the next drawn token.

        The two predictions of guidance come from one batch of twice the rows, [class; null]. The null half is dropped at the
        position from which the scale stays 1; if the scale is always 1, there is no null half. Without a category, images
        are drawn with the null class.
        """
        with torch.inference_mode():
            tokens = self._generate(wanted, sampler, guidance)
        return tokens.clone()  # a normal tensor: autograd refuses inference tensors

    def _generate(self, wanted: Wanted, sampler: Callable[[Tensor, Tensor], Tensor], guidance: Callable[..., float]) -> Tensor:
        rows, device = len(wanted.ids), next(self.network.parameters()).device
        scales = [float(guidance(position, self.positions)) for position in range(self.positions)]
        drawn = self._drawn(wanted)
        tokens = torch.zeros(rows, self.positions, dtype=torch.int64, device=device)
        if wanted.given is not None and len(drawn) < self.positions:
            tokens.copy_(wanted.given.flatten(1))
        if not drawn or not rows:
            return tokens.view(rows, *self.tokens.shape)
        numbers = uniforms(wanted.seed, wanted.ids, self.positions).t().contiguous().to(device, non_blocking=True)  # (L, B)
        guided_until = max((position + 1 for position in drawn if scales[position] != 1), default=0)
        label, outside = self._labels(wanted, rows, device)
        if guided_until:
            label = torch.cat([label, self.null(rows, device)])
        decoding = Decoding(self.network, self.start_of(label), drawn[-1] + 1)
        for done, position in enumerate(drawn, 1):
            if decoding.rows > rows and position >= guided_until:
                decoding.keep_rows(rows)
            seen = tokens[:, max(decoding.position - 1, 0) : position]
            ids = self.segments.ids(seen.clamp(min=0), max(decoding.position - 1, 0))
            logits = self.segments.at(decoding.advance(ids), position).float()
            if scales[position] != 1:
                logits = guided(logits[:rows], logits[rows:], scales[position])
            tokens[:, position] = sampler(logits[:rows], numbers[position])
            if wanted.watch is not None:
                wanted.watch(done, len(drawn), None)
        self._check(tokens, outside)
        return tokens.view(rows, *self.tokens.shape)

    def _drawn(self, wanted: Wanted) -> list[int]:
        """The positions that are drawn, in order."""
        if (wanted.given is None) != (wanted.keep is None):
            raise UserError('only one of given and keep is set', 'Set both: given has tokens, keep says which are kept.')
        if wanted.keep is None or wanted.given is None:
            return list(range(self.positions))
        shapes = tuple(wanted.given.shape), tuple(wanted.keep.shape)
        if shapes != ((len(wanted.ids), *self.tokens.shape), self.tokens.shape):
            raise UserError(
                f'given has shape {shapes[0]} and keep {shapes[1]}',
                f'For these images they are {(len(wanted.ids), *self.tokens.shape)} and {self.tokens.shape}.',
            )
        if self._out_of_range(wanted.given, wanted.keep):
            raise UserError(
                'a given token is not in the codebook', 'Tokens are at least 0 and below the size of their codebook.'
            )
        return [position for position, kept in enumerate(wanted.keep.flatten().tolist()) if not kept]

    def _out_of_range(self, given: Tensor, keep: Tensor) -> bool:
        sizes = torch.tensor(self.segments.sizes, device=given.device)
        wrong = ((given.reshape(len(given), -1, len(sizes)) >= sizes).flatten(1)) | (given.flatten(1) < 0)
        return bool((wrong & keep.flatten().to(given.device)).any())

    def _labels(self, wanted: Wanted, rows: int, device: torch.device) -> tuple[Tensor, Tensor | None]:
        """Labels (B,), clamped so that they can be embedded, and whether any label is out of range (bool on the device)."""
        category, empty = wanted.category, None if wanted.condition is None else wanted.condition.null
        if not self.classes:
            if category is not None:
                raise UserError('images of a class are requested, and this generator has no classes', 'Leave category out.')
            return torch.zeros(rows, dtype=torch.int64, device=device), None
        if category is None:
            return self.null(rows, device), None
        if category.shape != (rows,):
            raise UserError(f'{rows} images and categories of shape {tuple(category.shape)}', 'Give one category per image.')
        outside = (category < 0) | (category >= self.classes)
        label = category.clamp(0, self.classes - 1)
        return label if empty is None else torch.where(empty, self.null(rows, device), label), outside.any()

    def _check(self, tokens: Tensor, outside: Tensor | None) -> None:
        """Raise for bad labels and logits. This is the only host sync, after the last token."""
        bad = (tokens < 0).any()
        broken, unknown = torch.stack([bad, torch.zeros_like(bad) if outside is None else outside]).tolist()
        if unknown:
            raise UserError(f'a category is not among the {self.classes} classes', f'They are 0 to {self.classes - 1}.')
        if broken:
            raise RunFailure(
                'the network gave logits with NaN or infinity, so no token could be drawn',
                'Check the weights that were loaded; try precision fp32 or bf16 in place of fp16.',
            )
