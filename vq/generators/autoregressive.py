"""Tokens one after the other: p(tokens | class) = prod_t p(token t | class, tokens before t)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from vq.core.bindings import Bound, Source
from vq.core.errors import ConfigError, RunFailure, UserError
from vq.core.records import Predicted, SampleRequest
from vq.generators.decoding import Decoding
from vq.generators.segments import Segments
from vq.interfaces import CausalNetwork, Generator
from vq.registries import VQGeneratorRegistry
from vq.sampling.guidance import guided
from vq.sampling.streams import uniforms


def vocabulary_of(settings: Mapping[str, Any]) -> int:
    """How many ids the network has: of all codebooks, and of classes where these are ids too."""
    tokens: int = sum(settings['codebook_sizes'] or (settings['codebook_size'],))
    return tokens + (settings['classes'] + (settings['label_drop'] > 0) if settings['vocabulary'] == 'joint' else 0)


def length_of(settings: Mapping[str, Any]) -> Bound | None:
    """How many positions the network has, unless it counts them by its grid."""
    if settings['network'].get('grid') is not None or grid_of(settings) is not None:
        return None
    positions = math.prod(settings['token_shape'])
    return Bound(positions, lambda given: given >= positions, f'{positions} or more')


def grid_of(settings: Mapping[str, Any]) -> Bound | None:
    """The grid of rotary positions where the config asks for one (``rope='grid'``) and tokens have two axes."""
    wanted = settings['network'].get('rope') == 'grid' and len(settings['token_shape']) == 2
    return Bound(tuple(settings['token_shape']), lambda given: True) if wanted else None


def prefix_of(settings: Mapping[str, Any]) -> Bound | None:
    """One position, the class, stands before the grid."""
    return None if grid_of(settings) is None else Bound(1, lambda given: True)


@VQGeneratorRegistry.register_()
class Autoregressive(Generator):
    """A class, then the tokens of its image in raster order, those of a cell one after the other.

    - ``vocabulary='prefix'``: the class has an embedding of its own here, the network knows image tokens only. Without
      classes a learned vector stands at the start.
    - ``vocabulary='joint'``: ids of the network are classes first, then image tokens, and it embeds the class itself.
    - ``label_drop``: in training each label becomes the null class with this probability, which guidance needs. The null
      class is number ``classes``; in a joint vocabulary it is there only where labels are dropped.
    - ``codebook_sizes``: for tokens (..., n) of n codebooks; each has a segment of the vocabulary of its own.
    - ``predicts='segment'``: logits are those of the tokens that a position may hold. ``'vocabulary'``: those of all ids,
      with ids for targets, so that the loss teaches a joint vocabulary where image tokens stand, as a language model's does.

    ``generate`` never draws an id that is no token of its position, whatever ``predicts`` is.

    ``vocabulary`` and ``length`` of the network follow from these settings, and its ``grid`` and ``prefix`` where it has
    ``rope='grid'``. A longer network is accepted.
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
        token_shape: tuple[int, ...],
        codebook_size: int,
        classes: int = 0,
        vocabulary: Literal['prefix', 'joint'] = 'prefix',
        label_drop: float = 0.1,
        codebook_sizes: tuple[int, ...] = (),
        predicts: Literal['segment', 'vocabulary'] = 'segment',
    ) -> None:
        super().__init__()
        sizes = tuple(codebook_sizes) or (codebook_size,)
        if vocabulary not in ('prefix', 'joint'):
            raise ConfigError(f"vocabulary is '{vocabulary}'", "It is 'prefix' or 'joint'.")
        if predicts not in ('segment', 'vocabulary'):
            raise ConfigError(f"predicts is '{predicts}'", "It is 'segment' or 'vocabulary'.")
        if not 0 <= label_drop < 1:
            raise ConfigError(f'label_drop is {label_drop}', 'It is a probability below 1.')
        if vocabulary == 'joint' and not classes:
            raise ConfigError('a joint vocabulary has no classes', "Set classes=..., or vocabulary='prefix'.")
        if codebook_sizes and (len(sizes) != token_shape[-1] or max(sizes) != codebook_size):
            raise ConfigError(
                f'codebook_sizes {sizes} do not fit token_shape {tuple(token_shape)} and codebook_size {codebook_size}',
                'There is one for each token of the last axis, and the largest is codebook_size.',
            )
        self.token_shape = tuple(token_shape)
        self.codebook_size, self.codebook_sizes = codebook_size, tuple(codebook_sizes)
        self.classes, self.label_drop, self.vocabulary, self.predicts = classes, label_drop, vocabulary, predicts
        self.joint = vocabulary == 'joint'
        self.has_null = classes > 0 and label_drop > 0
        self.positions = math.prod(self.token_shape)
        self.segments = Segments(sizes, classes + self.has_null if self.joint else 0)
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
        """What stands at the start, N(0, 0.02) (again, after a move off the meta device); the network has its own."""
        if not self.joint:
            nn.init.normal_(self.class_embedding.weight if self.classes else self.start, std=0.02)

    # learning

    def forward(self, tokens: Tensor, category: Tensor | None) -> Predicted:
        flat = tokens.flatten(1)  # (B, L)
        ids = self.segments.ids(flat)
        start = self.start_of(self.dropped(category, len(flat), flat.device))
        logits = self.network(torch.cat([start, self.network.embed(ids[:, :-1])], 1))  # (B, L, vocabulary)
        if self.predicts == 'vocabulary':
            return Predicted(logits, ids)
        return Predicted(self.segments.select(logits), self.segments.targets(flat))

    def drawable(self, predicted: Predicted) -> Tensor:
        return self.segments.select(predicted.logits) if self.predicts == 'vocabulary' else predicted.logits

    def dropped(self, category: Tensor | None, rows: int, device: torch.device) -> Tensor:
        """Labels (B,), some of them the null class in training."""
        if not self.classes:
            return torch.zeros(rows, dtype=torch.int64, device=device)
        if category is None:
            return self.null(rows, device)
        if self.training and self.has_null:
            return torch.where(torch.rand(rows, device=device) < self.label_drop, self.classes, category)
        return category

    def null(self, rows: int, device: torch.device) -> Tensor:
        """The null class (B,), for images of no class in particular."""
        if not self.classes:
            raise UserError('guidance needs classes, and this generator knows none', 'Set the scale of the guidance to 1.')
        if not self.has_null:
            raise UserError(
                'this generator was trained with the class of every image, and knows nothing of images without one',
                'Give classes and no guidance (scale 1), or train with label_drop above 0.',
            )
        return torch.full((rows,), self.classes, device=device)

    def start_of(self, label: Tensor) -> Tensor:
        """Labels (B,) -> what stands at position 0, (B, 1, dim)."""
        if self.joint:
            return self.network.embed(label[:, None])
        if self.classes:
            embedded: Tensor = self.class_embedding(label[:, None])
            return embedded
        return self.start.expand(len(label), 1, -1)

    # drawing

    def generate(
        self, request: SampleRequest, sampler: Callable[[Tensor, Tensor], Tensor], guidance: Callable[..., float]
    ) -> Tensor:
        """One step of the network per token that is not kept; tokens kept in a row, at the start or inside, take one together.

        The two predictions of guidance come from one batch of twice the rows, [class; null]. Where the scale is 1 from some
        token on, the null half is left out from there, and everywhere where it is always 1. Without a category images are of
        no class in particular.
        """
        with torch.inference_mode():
            tokens = self._generate(request, sampler, guidance)
        return tokens.clone()  # one that autograd may see

    def _generate(
        self, request: SampleRequest, sampler: Callable[[Tensor, Tensor], Tensor], guidance: Callable[..., float]
    ) -> Tensor:
        rows, device = len(request.ids), next(self.network.parameters()).device
        scales = [float(guidance(position, self.positions)) for position in range(self.positions)]
        drawn = self._drawn(request)
        tokens = torch.zeros(rows, self.positions, dtype=torch.int64, device=device)
        if request.given is not None and len(drawn) < self.positions:
            tokens.copy_(request.given.flatten(1))
        if not drawn or not rows:
            return tokens.view(rows, *self.token_shape)
        numbers = uniforms(request.seed, request.ids, self.positions).t().contiguous().to(device, non_blocking=True)  # (L, B)
        guided_until = max((position + 1 for position in drawn if scales[position] != 1), default=0)
        label, outside = self._labels(request.category, rows, device)
        if guided_until:
            label = torch.cat([label, self.null(rows, device)])
        decoding = Decoding(self.network, self.start_of(label), drawn[-1] + 1)
        for position in drawn:
            if decoding.rows > rows and position >= guided_until:
                decoding.keep_rows(rows)
            seen = tokens[:, max(decoding.position - 1, 0) : position]
            ids = self.segments.ids(seen.clamp(min=0), max(decoding.position - 1, 0))
            logits = self.segments.at(decoding.advance(ids), position).float()
            if scales[position] != 1:
                logits = guided(logits[:rows], logits[rows:], scales[position])
            tokens[:, position] = sampler(logits[:rows], numbers[position])
        self._check(tokens, outside)
        return tokens.view(rows, *self.token_shape)

    def _drawn(self, request: SampleRequest) -> list[int]:
        """The positions that are drawn, in order."""
        if (request.given is None) != (request.keep is None):
            raise UserError('tokens are given without saying which are kept, or the reverse', 'Set both, given and keep.')
        if request.keep is None or request.given is None:
            return list(range(self.positions))
        shapes = tuple(request.given.shape), tuple(request.keep.shape)
        if shapes != ((len(request.ids), *self.token_shape), self.token_shape):
            raise UserError(
                f'given has shape {shapes[0]} and keep {shapes[1]}',
                f'For these images they are {(len(request.ids), *self.token_shape)} and {self.token_shape}.',
            )
        if self._out_of_range(request.given, request.keep):
            raise UserError('a token that is given is none of the codebook', 'Tokens are at least 0 and below codebook_size.')
        return [position for position, kept in enumerate(request.keep.flatten().tolist()) if not kept]

    def _out_of_range(self, given: Tensor, keep: Tensor) -> bool:
        sizes = torch.tensor(self.segments.sizes, device=given.device)
        wrong = ((given.reshape(len(given), -1, len(sizes)) >= sizes).flatten(1)) | (given.flatten(1) < 0)
        return bool((wrong & keep.flatten().to(given.device)).any())

    def _labels(self, category: Tensor | None, rows: int, device: torch.device) -> tuple[Tensor, Tensor | None]:
        """Labels (B,) that can be embedded, and whether any that was asked for cannot."""
        if not self.classes:
            if category is not None:
                raise UserError('images of a class are wanted, and this generator knows no classes', 'Leave category out.')
            return torch.zeros(rows, dtype=torch.int64, device=device), None
        if category is None:
            return self.null(rows, device), None
        if category.shape != (rows,):
            raise UserError(f'{rows} images and categories of shape {tuple(category.shape)}', 'Give one category per image.')
        return category.clamp(0, self.classes - 1), ((category < 0) | (category >= self.classes)).any()

    def _check(self, tokens: Tensor, outside: Tensor | None) -> None:
        """The only wait for the device, after the last token."""
        bad = (tokens < 0).any()
        broken, unknown = torch.stack([bad, torch.zeros_like(bad) if outside is None else outside]).tolist()
        if unknown:
            raise UserError(f'a category is not among the {self.classes} classes', f'They are 0 to {self.classes - 1}.')
        if broken:
            raise RunFailure(
                'the network gave logits that are no distribution (NaN or infinity), so no token could be drawn',
                'Look at the weights that were loaded; try precision fp32 or bf16 in place of fp16.',
            )
