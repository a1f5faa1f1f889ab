"""The inner loop of energy diffusion: any sampler, with a descent on the energy after each of its steps."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Annotated, Any

from torch import Tensor

from vq.core.errors import ConfigError
from vq.interfaces import Drive
from vq.interfaces.denoisers import Number
from vq.registries import VQDiffusionSamplerRegistry
from vq.sampling.curvature import step_from_curvature
from vq.sampling.descent import Accept, check, count_at, descend

Inner = Annotated[Callable[..., Any], VQDiffusionSamplerRegistry]
MOST = 100  # steps of an inner loop
APART = 10 * MOST  # numbers of noise between two inner loops


@VQDiffusionSamplerRegistry.register_('Refined')
def refined(
    z: Tensor,
    drive: Drive,
    *,
    sampler: Inner,
    size: float | None = None,
    count: int = 5,
    growth: float = 2.0,
    most: int = 10,
    accept: Accept = 'lower',
    limit: float | None = 2.0,
    langevin: bool = False,
    temperature: float = 1.0,
    curvature: float | None = None,
    power_steps: int = 3,
) -> Iterator[Tensor]:
    """After each step of ``sampler``, at its new time t:  z' = z - a dE/dz,  ``int(count (1 + growth t))`` times, at most
    ``most`` times; not at time 0.

    The energy and its gradient are the guided ones, at the time that the sampler gives them.

    - ``size``: a; None: that of the denoiser. ``curvature`` c: a = c / the largest curvature of E at z, in ``power_steps``
      power iterations, at most ``size``.
    - ``accept``: 'lower', samples whose energy rises stay; 'always'; 'metropolis', see ``descend``.
    - ``limit``: |z'| stays within ``limit`` alpha(t); None: no limit.
    - ``langevin``: adds  sqrt(2 a temperature) noise.
    """
    check(accept, langevin, temperature)
    sizes = [number for number in (size, curvature) if number is not None]
    if count < 1 or not 1 <= most <= MOST or growth < 0 or not all(number > 0 for number in sizes):
        raise ConfigError(
            f'an inner loop of {count} steps, at most {most}, growth {growth}, size {size}, curvature {curvature}',
            f'Give 1 to {MOST} steps, a growth of 0 or more, and sizes above 0, or None.',
        )
    own = drive.inner_step if size is None else size
    if own is None:
        raise ConfigError(
            'the inner loop has no step size, and the denoiser keeps none',
            "Set size, or take an energy: denoiser=dict(type='Energy', denoiser=..., step=0.01).",
        )
    calls = 0

    def corrected(z: Tensor, t: float) -> Tensor:
        nonlocal calls
        z = drive.corrected(z, t)
        if t <= 0:
            return z
        calls += 1
        base = -APART * calls  # negative: the numbers of the sampler's own steps are not

        def evaluate(z: Tensor) -> Any:
            return drive.denoise(z, t, drive.condition)

        step: Number = own
        if curvature is not None:
            step = step_from_curvature(evaluate, z, drive.noise(base - APART + 1), curvature, power_steps, own)
        found = descend(
            evaluate,
            z,
            count_at(t, drive.path.steps, count, growth, most),
            step,
            accept=accept,
            limit=None if limit is None else limit * float(drive.path.level_at(t).alpha),
            noise=(lambda number: drive.noise(base - number)) if langevin else None,
            temperature=temperature,
        )
        drive.observe(found)
        return found.z

    yield from sampler(z, dataclasses.replace(drive, corrected=corrected))
