"""Train a denoiser on images or latents, and draw with it."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar, NamedTuple, Self

import torch
from torch import Tensor, nn

from vq.core import collectives
from vq.core.bindings import Source
from vq.core.conditions import Condition
from vq.core.drawing import Drawn, Wanted
from vq.core.errors import ConfigError
from vq.core.random import key_of
from vq.core.records import Batch, Losses, Outputs, Prediction, PredictionKind, to_float
from vq.core.specs import ImageSize
from vq.denoisers.energy import energy_of
from vq.denoisers.frozen import FrozenDenoiser
from vq.encoders.frozen_tokenizer import FrozenTokenizer
from vq.interfaces import Conditioner, Denoiser, Encoder, LatentMap, Level, Loss, Path, Task, TimeLaw, Tokenizer
from vq.interfaces.conditions import Asked, Kind
from vq.interfaces.drawing import Setting
from vq.interfaces.losses import Landscape
from vq.losses.denoising import ElboRule
from vq.losses.objective import Objective
from vq.losses.variational import chain_bits
from vq.registries import VQDiffusionSamplerRegistry, VQGuidanceRegistry, VQTaskRegistry
from vq.sampling.keyed import keyed_normals
from vq.sampling.predictions import noised
from vq.sampling.streams import normals
from vq.tasks.asked import condition_in, condition_of
from vq.tasks.diffusion import settings as of_drawing
from vq.tasks.diffusion.drawing import Drawing, Threshold, estimate_of
from vq.tasks.diffusion.landscape import DescentTotals, check_energy
from vq.tasks.diffusion.network import Conditional
from vq.tasks.diffusion.numbers import Numbers, fixed_numbers, numbers_of, over_the_batch
from vq.tasks.diffusion.space import Space, cells_in, channels_in, pixels_in
from vq.tasks.hidden import hidden_of
from vq.tasks.terms import terms_of

Sampler = Annotated[Callable[..., Iterator[Tensor]], VQDiffusionSamplerRegistry]
Guidance = Annotated[Callable[..., float], VQGuidanceRegistry]

SEED = 3407  # of validation: the same at every checkpoint
OWN = {
    'denoising': 'the error of the denoiser',
    'elbo': 'its weighted error',
    'bound': 'the bound of its variance',
    'bits': 'the likelihood',
}


class Seen(NamedTuple):
    """What a pass over noisy samples gave."""

    losses: dict[str, Tensor]  # (B,), without weights
    hidden: dict[str, Tensor]  # features for other losses
    prediction: Prediction
    z: Tensor
    level: Level


@VQTaskRegistry.register_()
class DiffusionTask(Task):
    """z_t = alpha x0 + sigma eps,  loss = E w(t) |f(z_t, t, condition) - target(x0, eps, t)|^2.  Optimizer: ``denoiser``.

    What is learned:

    - ``tokenizer``: a FrozenTokenizer, whose normalized latents are x0; None: pixels in [-1, 1], of ``image_size``.
      ``connector``: a map with an inverse between its latents and x0. Channels and cells of the denoiser follow from both.
    - ``sample_posterior``: x0 is drawn from the Gaussian of a continuous tokenizer, in place of its mean.
    - ``denoiser``, ``conditioner``: the network f, and what makes its input of the condition; None: unconditional.
    - ``path``: alpha and sigma. ``times``: the law of t; ``stratified``: of each step, the times are spread over the batch of
      all ranks, so that its loss varies less. ``space``, ``min_snr``, ``bound_weight``, ``elbo_weight``,
      ``elbo_rule``: see ``Objective``.
    - ``losses``: more losses, on hidden features of the denoiser: see ``AlignmentLoss`` (REPA), they need images; or on its
      energies, if it is an ``Energy``: ``ContrastiveEnergyLoss``, ``RefinementLoss``.

    How images are drawn, in validation and by ``vq.sample``:

    - ``sampler``; ``guidance``: a schedule of the scale, ``guided_channels``: of the first channels alone; ``guide``: a
      weaker, frozen denoiser, which takes the place of the one without a condition (autoguidance).
    - ``threshold``: of the estimated data. ``history``: the number of states on the way that are recorded.

    Validation measures the loss in ``bins`` parts of (0, 1), at the same times with the same noise at every checkpoint, and
    draws the pictures in ``draws``: 'generated', of the condition of each image, or none. ``bits_steps``: it also measures the
    bound on the negative log likelihood of a chain of so many steps, in bits per number of x0; for paths with a grid. With
    the sampler ``Refined`` it adds the share of accepted inner steps, ``accept_rate``, and how far an inner loop lowers the
    energy, ``energy_gap``.

    For data of one's own, override ``unpack``.
    """

    kind: ClassVar[str] = 'generator'  # written into the spec of its runs
    codebooks: ClassVar[tuple[int, ...]] = ()  # it draws no tokens
    binds: ClassVar[dict[str, Source]] = {
        'denoiser.channels': channels_in,
        'denoiser.cells': cells_in,
        'conditioner.dim': 'denoiser.dim',
        'conditioner.sequence_dim': 'denoiser.sequence_dim',
        'conditioner.layout_dim': 'denoiser.layout_dim',
        'conditioner.image_size': pixels_in,
        'guide.channels': channels_in,
        'guide.cells': cells_in,
    }

    def __init__(
        self,
        *,
        tokenizer: Encoder | None = None,
        connector: LatentMap | None = None,
        image_size: ImageSize | None = None,
        sample_posterior: bool = False,
        denoiser: Denoiser,
        conditioner: Conditioner | None = None,
        path: Path,
        times: TimeLaw,
        stratified: bool = False,
        space: PredictionKind | None = None,
        min_snr: float | None = None,
        bound_weight: float = 1.0,
        elbo_weight: float = 0.0,
        elbo_rule: ElboRule = 'derived',
        losses: dict[str, Loss] | None = None,
        sampler: Sampler,
        guidance: Guidance,
        guided_channels: int | None = None,
        guide: Denoiser | None = None,
        threshold: Threshold | None = None,
        history: int = 0,
        draws: tuple[str, ...] = ('generated',),
        bins: int = 5,
        bits_steps: int | None = None,
    ) -> None:
        super().__init__()
        if tokenizer is not None and not isinstance(tokenizer, FrozenTokenizer):
            raise ConfigError(
                f'tokenizer is a {type(tokenizer).__name__}',
                "Write tokenizer=dict(type='FrozenTokenizer', tokenizer=..., weights=...), or None for pixels.",
            )
        if guide is not None and not isinstance(guide, FrozenDenoiser):
            raise ConfigError(
                f'guide is a {type(guide).__name__}', "Write guide=dict(type='FrozenDenoiser', denoiser=..., weights=...)."
            )
        if set(draws) - {'generated'} or bins < 1 or history < 0:
            raise ConfigError(
                f'draws is {tuple(draws)}, bins {bins} and history {history}',
                "Draw 'generated' or nothing, with 1 bin or more, and a history of 0 states or more.",
            )
        self.tokenizer, self.connector = tokenizer, connector
        self.denoiser, self.conditioner, self.guide = denoiser, conditioner, guide
        if connector is not None:
            connector.requires_grad_(False)  # a trained one would shrink x0 until nothing is left to learn
        self.space = Space(tokenizer, connector, image_size, sample_posterior)
        self.path, self.times, self.stratified = path, times, stratified
        self.objective = Objective(path, space, min_snr, bound_weight, tokenizer is None, elbo_weight, elbo_rule)
        self.losses = nn.ModuleDict(losses or {})
        terms = terms_of(type(self).__name__, losses or {}, ('hidden', 'energy'), OWN)
        check_energy(denoiser, losses or {}, terms['energy'])
        self._of_energy, self.descents = terms['energy'], DescentTotals()
        hidden = hidden_of(self, losses or {}, terms['hidden'])
        root = Conditional(denoiser, conditioner, hidden, getattr(denoiser, 'grid', self.space.spec.cells))
        self._roots = {'denoiser': root}  # in a dict, so that nn.Module does not register it twice
        self.drawn_by = Drawing(sampler, guidance, guided_channels, threshold, history)
        self.draws, self.bins, self.bits_steps = tuple(draws), bins, bits_steps
        self._seen: list[tuple[Tensor, Tensor]] = []  # times and losses of the micro-batches of this step
        self.outputs = Outputs()

    def roots(self) -> dict[str, nn.Module]:
        return dict(self._roots)

    @property
    def codes(self) -> Tokenizer | None:
        """The tokenizer itself."""
        return self.tokenizer.tokenizer if isinstance(self.tokenizer, FrozenTokenizer) else None

    # training

    def unpack(self, batch: Batch) -> tuple[Tensor, Condition | None]:
        """Image (B, 3, H, W), uint8 or in [-1, 1], or latent of a cache (B, C, *cells); and the condition of each."""
        found = batch.latent if batch.latent is not None else to_float(batch.image)
        return found, None if self.conditioner is None else condition_in(batch, self.conditioner)

    def training_step(self, batch: Batch, roots: Mapping[str, nn.Module], step: int) -> Iterator[tuple[str, Losses]]:
        if step == 1 and collectives.is_main() and not batch.key.is_meta:  # meta: only the memory is estimated
            self.space.warn()
        x, condition = self.unpack(batch)
        given = self.space.given.shape if self.space.sample else None
        drops = 1 if self.conditioner is None else self.conditioner.numbers
        numbers = numbers_of(batch, self.seed, step, self.space.spec.shape, given, drops)
        x0 = self.space.encode(x, numbers.posterior)
        t, weights = self.times(over_the_batch(numbers.time) if self.stratified else numbers.time, self.path)
        if self.conditioner is not None:
            condition = self.conditioner.dropped(condition, numbers.drop)
        seen = self._values(roots['denoiser'], x0, numbers.noise, t, condition, listens=True)
        found, losses = seen.losses, Losses()
        losses.add('denoising', (weights * found['denoising']).mean())
        if 'elbo' in found:
            losses.add('elbo', (weights * found['elbo']).mean(), self.objective.elbo_weight)
        if 'bound' in found:
            losses.add('bound', (weights * found['bound']).mean(), self.objective.bound_weight)
        for name, value in self._of_hidden(seen.hidden, batch).items():
            losses.add(name, value, self.losses[name].weight)  # type: ignore[arg-type]
        if self._of_energy:
            energy = energy_of(self.denoiser)
            assert energy is not None
            landscape = Landscape(
                lambda z: roots['denoiser'](z, t, condition)[0],
                *(seen.prediction, seen.z, x0, numbers.noise, t, seen.level, self.path.steps, energy.step),
                lambda purpose: keyed_normals(batch.key, *self.space.spec.shape, purpose=(self.seed, step, purpose)),
                losses.notes,
            )
            for name in self._of_energy:
                losses.add(name, self.losses[name](landscape), self.losses[name].weight)  # type: ignore[arg-type]
        weighted = (value.detach() * losses.weights[name] for name, value in found.items())
        self._seen.append((t, torch.stack([*weighted]).sum(0)))
        yield 'denoiser', losses

    def _values(
        self, root: nn.Module, x0: Tensor, eps: Tensor, t: Tensor, condition: Condition | None, listens: bool = False
    ) -> Seen:
        """Samples at times t (B,)."""
        level = self.path.level(t)
        z = noised(x0, eps, level)
        prediction, hidden = root(z, t, condition, listens)
        found = {'denoising': self.objective.error(prediction, x0, eps, level)}
        more = {
            'elbo': self.objective.elbo(prediction, x0, eps, level, t),
            'bound': self.objective.bound(prediction, z, x0, t),
        }
        found |= {name: value for name, value in more.items() if value is not None}
        return Seen(found, hidden, prediction, z, level)

    def _of_hidden(self, hidden: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """The values of the losses on hidden features."""
        image = to_float(batch.image) if hidden else None
        return {name: self.losses[name](features, image) for name, features in hidden.items()}

    def update(self, ok: Tensor | None = None) -> None:
        if self._seen:
            t, losses = (torch.cat(values) for values in zip(*self._seen, strict=True))
            self._seen.clear()
            self.times.observe(t, losses, ok)

    # validation

    @torch.no_grad()
    def validation_step(self, batch: Batch) -> Outputs:
        x, condition = self.unpack(batch)
        x0, ids = self.space.encode(x), [key_of(name) for name in batch.id]
        self.descents.take()  # of what was drawn before
        found = Outputs(losses=self._losses_over_time(x0, ids, condition))
        if self.bits_steps is not None:
            found.losses['bits'] = self._bits(x0, ids, condition, self.bits_steps).mean()
        if self.tokenizer is not None and self.space.decodes and batch.image is not None:
            found.reconstruction = self.space.decode(self.space.latents(x0))
        for name in self.draws if self.space.decodes else ():
            pictures = self.draw(Wanted(ids, SEED, condition)).images()
            assert pictures is not None
            found.pictures[name] = pictures
        found.losses |= self.descents.take()
        return found

    def _losses_over_time(self, x0: Tensor, ids: list[int], condition: Condition | None) -> dict[str, Tensor]:
        """The error in each part of (0, 1), and their mean. A sample has one time in each part."""
        numbers: Numbers = fixed_numbers(SEED, ids, self.space.spec.shape, x0.device)
        parts: dict[str, Tensor] = {}
        for place in range(self.bins):
            t = (place + numbers.time) / self.bins
            if self.path.steps is not None:
                t = (t * self.path.steps).floor().add(1) / self.path.steps
            found = self._values(self._roots['denoiser'], x0, numbers.noise, t, condition).losses
            parts[f't{place / self.bins:.2g}-{(place + 1) / self.bins:.2g}'] = found['denoising'].mean()
        return {'denoising': torch.stack([*parts.values()]).mean(), **parts}

    def _bits(self, x0: Tensor, ids: list[int], condition: Condition | None, steps: int) -> Tensor:
        """(B,): the bound of a chain of ``steps`` steps."""
        estimate = estimate_of(self._roots['denoiser'])

        def rows(z: Tensor, t: float) -> Prediction:
            return estimate(z, t, condition)

        def noise(step: int) -> Tensor:
            return normals(SEED, ids, *self.space.spec.shape, purpose=f'bits {step}').to(x0.device)

        return chain_bits(rows, x0, self.path, noise, pixels=self.tokenizer is None, steps=steps).total

    # drawing: see vq/interfaces/drawing.py

    @property
    def asks(self) -> Kind | None:
        return next(iter(self.kinds), None)

    @property
    def kinds(self) -> tuple[Kind, ...]:
        return () if self.conditioner is None else self.conditioner.kinds

    @property
    def classes(self) -> int:
        return 0 if self.conditioner is None else self.conditioner.classes

    def condition(self, asked: Asked, places: Sequence[int], device: torch.device) -> Condition | None:
        return condition_of(asked, self.kinds, self.classes, places, device)

    @torch.no_grad()
    def draw(self, wanted: Wanted) -> Drawn:
        guide = self.guide if isinstance(self.guide, FrozenDenoiser) else None
        return self.drawn_by.draw(wanted, self.space, self._roots['denoiser'], self.path, guide, self.descents.add)

    @classmethod
    def settings(cls, config: Mapping[str, Any]) -> dict[str, Setting]:
        return of_drawing.own(config)

    @classmethod
    def set_drawing(cls, config: dict[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
        return of_drawing.changed_config(config, settings)

    def drawing(self, settings: Mapping[str, Any], described: Mapping[str, Any] | None = None) -> Self:
        of_drawing.check(settings, self.conditioner is not None or self.guide is not None)
        own = of_drawing.changed(self.drawn_by.sampler, self.drawn_by.guidance, self.drawn_by.history, settings)
        changed = copy.copy(self)
        changed.drawn_by = dataclasses.replace(self.drawn_by, **own)
        return changed

    def forward_once(self, batch: Batch) -> None:
        """One pass of the denoiser. The latents are zeros: the tokenizer does not run."""
        device, rows = batch.key.device, len(batch)
        zeros = torch.zeros(rows, dtype=torch.int64, device=device)
        z = torch.zeros(rows, *self.space.spec.shape, device=device)
        self._roots['denoiser'](z, zeros.float(), Condition(zeros) if self.classes else None)
