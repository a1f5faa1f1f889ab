"""Train a generator of continuous tokens on latents, and draw with it."""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Self

import torch
from torch import Tensor, nn

from vq.core import collectives
from vq.core.bindings import Source
from vq.core.conditions import Condition
from vq.core.drawing import Drawn, Wanted
from vq.core.errors import ConfigError
from vq.core.random import derive_seed, key_of
from vq.core.records import Batch, Losses, Outputs, to_float
from vq.encoders.frozen_tokenizer import FrozenTokenizer
from vq.interfaces import Conditioner, ContinuousGenerator, Encoder, LatentMap, Streams, Task, TokenDrawing, Tokenizer
from vq.interfaces.conditions import Asked, Kind
from vq.interfaces.drawing import Setting
from vq.registries import VQDiffusionSamplerRegistry, VQGuidanceRegistry, VQTaskRegistry
from vq.sampling.keyed import KeyedStreams, keyed_normals, keyed_uniforms
from vq.tasks.asked import condition_of_classes
from vq.tasks.diffusion.space import Space, cells_in, channels_in
from vq.tasks.latent_modeling import settings as of_drawing
from vq.tasks.sequence_modeling.task import first_half

Sampler = Annotated[Callable[..., Iterator[Tensor]], VQDiffusionSamplerRegistry]
Guidance = Annotated[Callable[..., float], VQGuidanceRegistry]

SEED = 3407  # of validation: the same at every checkpoint
PICTURES = ('generated', 'half_generated')


class Conditional(nn.Module):
    """A generator with its conditioner: one root, wrapped as a whole.

    (latents (B, C, *cells), condition, random numbers) -> name -> loss
    """

    def __init__(self, generator: ContinuousGenerator, conditioner: Conditioner | None) -> None:
        super().__init__()
        self.generator, self.conditioner = generator, conditioner

    def forward(self, latents: Tensor, condition: Condition | None, streams: Streams) -> dict[str, Tensor]:
        conditioned = None if self.conditioner is None else self.conditioner(condition, len(latents))
        found: dict[str, Tensor] = self.generator(latents, conditioned, streams)
        return found


@VQTaskRegistry.register_()
class LatentModeling(Task):
    """loss = that of the generator on normalized latents of a frozen tokenizer: see ``MAR``. Optimizer: ``generator``.

    - ``tokenizer``: a FrozenTokenizer, whose latents are learned, images or those of a cache. ``connector``: a map with an
      inverse between its latents and those. ``sample_posterior``: they are drawn from the Gaussian of a continuous tokenizer,
      in place of its mean.
    - ``generator``, ``conditioner``: the model, and what makes its input of the condition; None: unconditional.
    - ``sampler``, ``guidance``, ``temperature``, ``num_iter``: how validation and ``vq.sample`` draw, see ``TokenDrawing``.
      What a generator does not use has no effect, and ``vq.sample`` refuses it.
    - ``draws``: pictures that validation draws for each image. 'generated': a new image of the same condition.
      'half_generated': a new image that keeps the first half of the latent.

    Validation measures the losses for ``bins`` shares of hidden tokens, with the same random numbers at every checkpoint.

    ``channels`` and ``cells`` of the generator are taken from the tokenizer and its ``image_size``.
    """

    kind: ClassVar[str] = 'generator'  # written into the spec of its runs
    codebooks: ClassVar[tuple[int, ...]] = ()  # it draws no tokens with numbers
    binds: ClassVar[dict[str, Source]] = {
        'generator.channels': channels_in,
        'generator.cells': cells_in,
        'conditioner.dim': 'generator.dim',
    }

    def __init__(
        self,
        *,
        tokenizer: Encoder,
        connector: LatentMap | None = None,
        sample_posterior: bool = False,
        generator: ContinuousGenerator,
        conditioner: Conditioner | None = None,
        sampler: Sampler | None = None,
        guidance: Guidance,
        temperature: float = 1.0,
        num_iter: int = 64,
        draws: tuple[str, ...] = PICTURES,
        bins: int = 3,
    ) -> None:
        super().__init__()
        if not isinstance(tokenizer, FrozenTokenizer):
            raise ConfigError(
                f'tokenizer is a {type(tokenizer).__name__}',
                "Write tokenizer=dict(type='FrozenTokenizer', tokenizer=..., weights=...).",
            )
        if set(draws) - set(PICTURES) or bins < 1 or num_iter < 1 or not temperature >= 0:
            raise ConfigError(
                f'draws is {tuple(draws)}, bins {bins}, num_iter {num_iter} and temperature {temperature}',
                f'Draw any of {", ".join(PICTURES)}, with 1 bin and 1 iteration or more, and a temperature from 0.',
            )
        if 'sampler' in of_drawing.taken(generator) and sampler is None:
            raise ConfigError('the head of the generator needs a sampler', "Set sampler=dict(type='Ancestral', steps=100).")
        self.tokenizer, self.connector, self.generator, self.conditioner = tokenizer, connector, generator, conditioner
        if connector is not None:
            connector.requires_grad_(False)
        self.space = Space(tokenizer, connector, None, sample_posterior)
        self._roots: dict[str, nn.Module] = {'generator': Conditional(generator, conditioner)}
        self.drawn_by = TokenDrawing(sampler, guidance, temperature, num_iter)
        if 'temperature' in of_drawing.taken(generator):
            of_drawing.check_temperature(self.drawn_by)
        self.draws, self.bins = tuple(draws), bins
        self.outputs = Outputs()

    def roots(self) -> dict[str, nn.Module]:
        return dict(self._roots)

    @property
    def codes(self) -> Tokenizer:
        """The tokenizer itself."""
        found = self.tokenizer.tokenizer
        assert isinstance(found, Tokenizer)
        return found

    # training

    def unpack(self, batch: Batch) -> tuple[Tensor, Condition | None]:
        """Image (B, 3, H, W), uint8 or in [-1, 1], or latent of a cache (B, C, *cells); and the condition of each."""
        found = batch.latent if batch.latent is not None else to_float(batch.image)
        if self.conditioner is None:
            return found, None
        if 'classes' in self.conditioner.kinds and batch.category is None:
            raise ConfigError(
                f'the conditioner learns {self.conditioner.classes} classes, and this dataset gives none',
                'Take a dataset with classes, or set conditioner to None.',
            )
        return found, Condition.of(batch)

    def training_step(self, batch: Batch, roots: Mapping[str, nn.Module], step: int) -> Iterator[tuple[str, Losses]]:
        if step == 1 and collectives.is_main() and not batch.key.is_meta:  # meta: only the memory is estimated
            self.space.warn()
        x, condition = self.unpack(batch)
        purpose, keys = (self.seed, step), batch.key
        noise = keyed_normals(keys, *self.space.given.shape, purpose=(*purpose, 'posterior')) if self.space.sample else None
        latents = self.space.encode(x, noise)
        if self.conditioner is not None:
            numbers = keyed_uniforms(keys, self.conditioner.numbers, purpose=(*purpose, 'drop'))
            condition = self.conditioner.dropped(condition, numbers.squeeze(1))
        shared = derive_seed('shared', *purpose) / 2**63
        found = roots['generator'](latents, condition, KeyedStreams(keys, purpose, shared))
        losses, weights = Losses(), self.generator.loss_weights
        for name, value in found.items():
            losses.add(name, value, weights.get(name, 1.0))
        yield 'generator', losses

    # validation

    @torch.no_grad()
    def validation_step(self, batch: Batch) -> Outputs:
        x, condition = self.unpack(batch)
        latents, ids = self.space.encode(x), [key_of(name) for name in batch.id]
        found = Outputs(losses=self._losses(latents, ids, condition))
        if self.space.decodes:
            if batch.image is not None:
                found.reconstruction = self.space.decode(self.space.latents(latents))
            for name in self.draws:
                wanted = Wanted(ids, SEED, condition)
                if name == 'half_generated':
                    wanted.given, wanted.keep = latents, first_half(tuple(latents.shape[2:]), latents.device)
                pictures = self.draw(wanted).images()
                assert pictures is not None
                found.pictures[name] = pictures
        return found

    def _losses(self, latents: Tensor, ids: list[int], condition: Condition | None) -> dict[str, Tensor]:
        """Means over ``bins`` shares of hidden tokens, one in each equal part of their law."""
        keys = torch.tensor(ids, device=latents.device)
        found: dict[str, list[Tensor]] = {}
        for place in range(self.bins):
            streams = KeyedStreams(keys, (SEED, 'validation', place), (place + 0.5) / self.bins)
            for name, value in self._roots['generator'](latents, condition, streams).items():
                found.setdefault(name, []).append(value)
        return {name: torch.stack(values).mean() for name, values in found.items()}

    # drawing: see vq/interfaces/drawing.py

    def given(self, image: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [-1, 1] as what a drawing can keep parts of: (B, C, *cells)."""
        return self.space.encode(image)

    @property
    def asks(self) -> Kind | None:
        return None if self.conditioner is None else self.conditioner.kinds[0]

    @property
    def classes(self) -> int:
        return 0 if self.conditioner is None else self.conditioner.classes

    def condition(self, asked: Asked, places: Sequence[int], device: torch.device) -> Condition | None:
        return condition_of_classes(asked, self.classes, places, device)

    @torch.no_grad()
    def draw(self, wanted: Wanted) -> Drawn:
        """All random numbers of image i are from streams of the seed and i alone."""
        device = next(self.generator.parameters()).device
        streams = KeyedStreams(torch.tensor(wanted.ids, dtype=torch.int64, device=device), ('draw', wanted.seed))
        known = empty = None
        if self.conditioner is not None:
            known = self.conditioner(wanted.condition, len(wanted.ids))
            empty = None if wanted.condition is None else self.conditioner(None, len(wanted.ids))
        drawing = dataclasses.replace(self.drawn_by, watch=wanted.watch)
        z = self.generator.generate(streams, known, empty, drawing, wanted.given, wanted.keep)
        latents = self.space.latents(z)
        return Drawn(latents=latents, decode=functools.partial(self.space.decode, latents) if self.space.decodes else None)

    @classmethod
    def settings(cls, config: Mapping[str, Any]) -> dict[str, Setting]:
        return of_drawing.own(config)

    @classmethod
    def set_drawing(cls, config: dict[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
        return of_drawing.changed_config(config, settings)

    def drawing(self, settings: Mapping[str, Any], described: Mapping[str, Any] | None = None) -> Self:
        takes = of_drawing.taken(self.generator)
        of_drawing.check(settings, takes, self.conditioner is not None)
        changed = copy.copy(self)
        described = of_drawing.describe(self.drawn_by) if described is None else described
        changed.drawn_by = of_drawing.changed(self.drawn_by, settings, described)
        if 'temperature' in takes:
            of_drawing.check_temperature(changed.drawn_by)
        return changed

    def forward_once(self, batch: Batch) -> None:
        """One pass of the generator. The latents are zeros: the tokenizer does not run."""
        rows, keys = len(batch), batch.key
        zeros = torch.zeros(rows, dtype=torch.int64, device=keys.device)
        latents = torch.zeros(rows, *self.space.spec.shape, device=keys.device)
        self._roots['generator'](latents, Condition(zeros) if self.classes else None, KeyedStreams(keys, ('once',), 0.5))
