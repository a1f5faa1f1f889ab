"""What the energies of a trained denoiser say of states on the way from noise, of images, and of conditions together."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from vq.core.conditions import Condition
from vq.core.drawing import Wanted
from vq.core.errors import UserError
from vq.denoisers.energy import energy_of
from vq.denoisers.frozen import FrozenDenoiser
from vq.interfaces import Drive
from vq.sampling.composed import Composed
from vq.sampling.predictions import noised
from vq.tasks.diffusion.drawing import estimate_of, noise_of
from vq.tasks.diffusion.network import Conditional
from vq.tasks.diffusion.task import DiffusionTask

WAY = (0.1, 0.3, 0.5, 0.7, 0.9)  # times at which states are judged
LIKELY = (0.1, 0.2, 0.3)  # times at which images are judged: much noise hides what they are
DRAWS = 4  # noises of an image at each of these times
STATES = 25  # on the way that are judged, at most
SEED = 3407


@torch.no_grad()
def mean_energies(task: DiffusionTask, z: Tensor, condition: Condition | None, times: Sequence[float] = WAY) -> Tensor:
    """(B,): the mean over ``times`` of E(z, t, condition), for z (B, C, *cells) of any noise.

    An energy is known up to a constant of each time, so that energies at different times cannot be compared. Means over the
    same times can: the constants are the same for all z.
    """
    if energy_of(task.denoiser) is None:
        raise UserError(f'the denoiser is a {type(task.denoiser).__name__}, which has no energy', 'Train configs/energy.')
    denoise, found = estimate_of(task.roots()['denoiser']), []
    for t in times:
        energy = denoise(z, float(t), condition).energy
        assert energy is not None
        found.append(energy.double())
    return torch.stack(found).mean(0)


@torch.no_grad()
def energies_on_the_way(task: DiffusionTask, wanted: Wanted, times: Sequence[float] = WAY) -> Tensor:
    """(K, B): ``mean_energies`` of the noise, and of the states after the steps of the task's sampler: of all of these, or of
    ``STATES`` that are evenly spaced, the last one among them."""
    z, drive = _begin(task, wanted)
    states = [z, *task.drawn_by.sampler(z, drive)]
    if len(states) > STATES:
        states = [states[round(place * (len(states) - 1) / (STATES - 1))] for place in range(STATES)]
    return torch.stack([mean_energies(task, state, wanted.condition, times) for state in states])


def share_that_fell(energies: Tensor) -> float:
    """The share of samples (K, B) whose energy is lower at the last step than at the first."""
    return float((energies[-1] < energies[0]).double().mean())


@torch.no_grad()
def energies_of_images(
    task: DiffusionTask, images: Tensor, condition: Condition | None = None, times: Sequence[float] = LIKELY
) -> Tensor:
    """(B,): the mean energy of images (B, 3, H, W), uint8 or in [-1, 1], with noise of ``times``. High: unlike the data.

    The noise is the same for all images, so that it adds no difference between them.
    """
    x0, found = task.space.encode(images), []
    for draw in range(DRAWS):
        eps = noise_of(SEED, [draw], 'energy', task.space.spec.shape, x0.device).expand_as(x0)
        for t in times:
            z = noised(x0, eps, task.path.level(x0.new_full((len(x0),), t)))
            found.append(mean_energies(task, z, condition, [t]))
    return torch.stack(found).mean(0)


@torch.no_grad()
def draw_composed(task: DiffusionTask, wanted: Wanted, conditions: Sequence[Condition], scale: float = 1.0) -> Tensor:
    """Images (B, 3, H, W) in [-1, 1] of all ``conditions`` at once, each of B rows; see ``Composed``."""
    first, drive = _begin(task, wanted)
    drive = dataclasses.replace(drive, denoise=Composed(estimate_of(task.roots()['denoiser']), conditions, scale))
    *_, z = task.drawn_by.sampler(first, drive)
    return task.space.decode(task.space.latents(z))


def _begin(task: DiffusionTask, wanted: Wanted) -> tuple[Tensor, Drive]:
    guide = task.guide if isinstance(task.guide, FrozenDenoiser) else None
    return task.drawn_by.begin(
        wanted, task.space, cast(Conditional, task.roots()['denoiser']), task.path, guide, lambda found: None
    )
