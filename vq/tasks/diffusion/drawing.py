"""How a trained denoiser draws images."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from vq.core.conditions import Condition
from vq.core.drawing import Drawn, Wanted
from vq.core.random import derive_seed
from vq.core.records import Prediction
from vq.denoisers.energy import energy_of
from vq.denoisers.frozen import FrozenDenoiser
from vq.interfaces import Drive, Path
from vq.interfaces.denoisers import Denoise
from vq.sampling.descent import Descent
from vq.sampling.guided import Guided
from vq.sampling.keyed import keyed_normals
from vq.sampling.thresholds import Thresholded
from vq.tasks.diffusion.network import Conditional
from vq.tasks.diffusion.space import Space


@dataclasses.dataclass
class Threshold:
    """The estimated data stay within ``limit``; with a ``quantile``, by the dynamic threshold. For pixels."""

    limit: float = 1.0
    quantile: float | None = None


@dataclasses.dataclass
class Drawing:
    """The settings that images depend on beside the weights; see ``DiffusionTask``."""

    sampler: Callable[..., Iterator[Tensor]]
    guidance: Callable[..., float]
    guided_channels: int | None = None
    threshold: Threshold | None = None
    history: int = 0

    def denoise(self, root: Conditional, path: Path, guide: FrozenDenoiser | None) -> Denoise:
        """The estimate for rows of one time, with guidance and threshold."""
        weak = None if guide is None else estimate_of(guide.rows)
        found: Denoise = Guided(estimate_of(root.for_drawing()), self.guidance, self.guided_channels, weak)
        if self.threshold is not None:
            found = Thresholded(found, path, self.threshold.limit, self.threshold.quantile)
        return found

    def begin(
        self,
        wanted: Wanted,
        space: Space,
        root: Conditional,
        path: Path,
        guide: FrozenDenoiser | None,
        observe: Callable[[Descent], None],
    ) -> tuple[Tensor, Drive]:
        """z_1 (B, C, *cells), and what a sampler is given beside it. z_1 and the noise of each step of image i are functions
        of the seed and i alone, computed on the device. ``observe`` gets what each inner loop did."""
        device = next(root.parameters()).device

        def numbers(purpose: str) -> Tensor:
            return noise_of(wanted.seed, wanted.ids, purpose, space.spec.shape, device)

        drive = Drive(self.denoise(root, path, guide), path, wanted.condition, lambda step: numbers(f'step {step}'))
        drive.observe, drive.timeless = observe, root.denoiser.timeless
        energy = energy_of(root.denoiser)
        if energy is not None:
            drive.inner_step = energy.step.detach()
        return numbers('latent'), drive

    def draw(
        self,
        wanted: Wanted,
        space: Space,
        root: Conditional,
        path: Path,
        guide: FrozenDenoiser | None,
        observe: Callable[[Descent], None],
    ) -> Drawn:
        """Images; see ``begin``."""
        first, drive = self.begin(wanted, space, root, path, guide, observe)
        steps = steps_of(self.sampler)
        history, z = History(self.history, steps), first
        for done, z in enumerate(self.sampler(first, drive), 1):
            history.add(z)
            if wanted.watch is not None:
                shown = functools.partial(_shown, space, z) if space.decodes else None
                wanted.watch(done, steps, shown)
        latents = space.latents(z)
        if not space.decodes:
            return Drawn(latents=latents)
        states = [space.decode(space.latents(state)) for state in history.spaced()]
        kept = None if space.tokenizer is None else latents
        return Drawn(latents=kept, decode=functools.partial(space.decode, latents), history=states)


def _shown(space: Space, z: Tensor) -> Tensor:
    """A state of a sampler as images (B, 3, H, W)."""
    return space.decode(space.latents(z))


def noise_of(seed: int, ids: list[int], purpose: str, shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Standard normal numbers (B, *shape), those of an image by its id. Only keys pass from the host to the device."""
    keys = torch.tensor([derive_seed('drawn', seed, number) for number in ids], device=device)
    return keyed_normals(keys, *shape, purpose=(purpose,))


def estimate_of(rows: Callable[..., Any]) -> Denoise:
    """A ``Denoise`` of a network that takes times (B,)."""

    def denoise(z: Tensor, t: float, condition: Condition | None) -> Prediction:
        found = rows(z, z.new_full((len(z),), t), condition)
        return found if isinstance(found, Prediction) else found[0]

    return denoise


def steps_of(sampler: Callable[..., Any]) -> int | None:
    """The number of steps that a sampler is set to; None if it has no such setting."""
    inner = getattr(sampler, 'keywords', {}).get('sampler')  # a sampler around another one yields as often
    parameter = inspect.signature(inner or sampler).parameters.get('steps')
    return None if parameter is None or parameter.default is parameter.empty else int(parameter.default)


class History:
    """Keeps ``count`` of the states of a sampler, about evenly spaced, the last one among them."""

    def __init__(self, count: int, steps: int | None) -> None:
        self.count, self.states = count, list[Tensor]()
        self._kept = None if steps is None else {round(place * steps / count) for place in range(1, count + 1)}
        self._step, self._last = 0, 0  # the last step that is kept for good

    def add(self, z: Tensor) -> None:
        """Samplers without a known number of steps keep all; others can take fewer or more steps than they are set to."""
        if not self.count:
            return
        if self._step > self._last:  # the state before was kept only in case that it is the end
            self.states.pop()
        self._step += 1
        if self._kept is None or self._step in self._kept:
            self._last = self._step
        self.states.append(z)

    def spaced(self) -> list[Tensor]:
        found = len(self.states)
        if found <= self.count:
            return self.states
        return [self.states[round(place * found / self.count) - 1] for place in range(1, self.count + 1)]
