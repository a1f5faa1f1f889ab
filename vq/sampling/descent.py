"""Descent on an energy at one noise level: the inner loop of energy diffusion.

z' = z - a g,  g = dE/dz,  then clamped, then accepted or not. g is what the denoiser estimates: a pass gives E and g.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from vq.core.errors import ConfigError, listing
from vq.core.records import Prediction
from vq.interfaces.denoisers import Number
from vq.sampling.predictions import UPHILL, spread

Accept = Literal['lower', 'always', 'metropolis']
Evaluate = Callable[[Tensor], Prediction]


class Descent(NamedTuple):
    """K steps of B samples."""

    z: Tensor
    energies: Tensor  # (K + 1, B): before the first step and after each
    accepted: Tensor  # (K, B) bool
    tried: Tensor  # (K, B) bool: rows with fewer steps than K did not try the last ones

    @property
    def drops(self) -> Tensor:
        """(K, B): how far each step lowered the energy."""
        return self.energies[:-1] - self.energies[1:]

    @property
    def rate(self) -> Tensor:
        """() the share of steps that were accepted."""
        return self.accepted.sum() / self.tried.sum().clamp(min=1)


def descend(
    evaluate: Evaluate,
    z: Tensor,
    steps: int,
    size: Number,
    *,
    accept: Accept = 'lower',
    limit: Number | None = None,
    counts: Tensor | None = None,
    noise: Callable[[int], Tensor] | None = None,
    temperature: float = 1.0,
    recompute: bool = False,
) -> Descent:
    """``steps`` steps of z (B, C, *cells).  ``size``: a, one number or one for each row (B,).

    - ``accept``: 'lower', a sample whose energy rises stays where it is; 'always'; 'metropolis', a rise is accepted with the
      probability that makes  exp(-E / temperature)  stationary.
    - ``limit``: of |z'|, one number or one for each row.
    - ``counts`` (B,): rows take only so many of the steps.
    - ``noise``: Langevin's:  z' = z - a g + sqrt(2 a temperature) noise(step).
    - ``recompute``: with a graph, a step keeps only its input, and runs again in backward; not on devices without a
      module ``torch.DEVICE``, which torch's checkpointing asks for random states.
    """
    check(accept, noise is not None, temperature)

    def step(z: Tensor, energy: Tensor, gradient: Tensor, number: int) -> tuple[Tensor, ...]:
        wide = spread(size, z)
        proposed = z - wide * gradient
        if noise is not None:
            proposed = proposed + (2 * temperature * torch.as_tensor(wide)).sqrt() * noise(2 * number)
        if limit is not None:
            bound = spread(limit, z)
            proposed = torch.maximum(torch.minimum(proposed, torch.as_tensor(bound)), -torch.as_tensor(bound))
        energy_there, gradient_there = energy_and_gradient(evaluate(proposed))
        taken = torch.ones_like(energy, dtype=torch.bool)
        if accept == 'lower':
            taken = energy_there <= energy
        elif accept == 'metropolis':
            assert noise is not None
            forth = (proposed - z + wide * gradient).square() / wide
            back = (z - proposed + wide * gradient_there).square() / wide
            log_odds = energy - energy_there + (forth - back).flatten(1).sum(1) / 4
            uniform = torch.special.ndtr(noise(2 * number + 1).flatten(1)[:, 0])
            taken = uniform.log() <= log_odds / temperature
        if counts is not None:
            taken = taken & (number < counts)
        rows = taken.view(-1, *[1] * (z.ndim - 1))
        return (
            torch.where(rows, proposed, z),
            torch.where(taken, energy_there, energy),
            torch.where(rows, gradient_there, gradient),
            taken,
        )

    recompute = recompute and torch.is_grad_enabled() and (z.is_meta or hasattr(torch, z.device.type))
    energy, gradient = energy_and_gradient(evaluate(z))
    energies, accepted = [energy], list[Tensor]()
    for number in range(steps):
        if recompute:
            z, energy, gradient, taken = checkpoint(step, z, energy, gradient, number, use_reentrant=False)
        else:
            z, energy, gradient, taken = step(z, energy, gradient, number)
        energies.append(energy)
        accepted.append(taken)
    limits = torch.full((len(z),), steps, device=z.device) if counts is None else counts
    tried = torch.arange(steps, device=z.device)[:, None] < limits
    return Descent(z, torch.stack(energies), torch.stack(accepted), tried)


def energy_and_gradient(found: Prediction) -> tuple[Tensor, Tensor]:
    if found.energy is None:
        raise ConfigError(
            'the inner loop needs energies, and the denoiser gives none',
            "Wrap it: denoiser=dict(type='Energy', denoiser=...), with guidance of all channels and no threshold.",
        )
    return found.energy, gradient_of(found)


def gradient_of(found: Prediction) -> Tensor:
    """dE/dz of an estimate."""
    return -found.value if found.kind in UPHILL else found.value


def check(accept: Accept, noisy: bool, temperature: float) -> None:
    if accept not in get_args(Accept) or not temperature > 0:
        raise ConfigError(
            f"accept is '{accept}' and temperature {temperature}",
            f'Give one of {listing(get_args(Accept))}, and a temperature above 0.',
        )
    if accept == 'metropolis' and not noisy:
        raise ConfigError("accept='metropolis' without noise", 'Add noise, or accept steps that lower the energy.')


def count_at(t: float, steps: int | None, base: int = 5, growth: float = 2.0, most: int = 10) -> int:
    """int(base (1 + growth s)) within 1 .. ``most``: more steps where there is more noise. s = t, and on a grid of ``steps``
    times t - 1 / steps, so that s is 0 at the first noisy time."""
    return min(max(int(base * (1 + growth * (t - (1 / steps if steps else 0))) + 1e-9), 1), most)


def counts_at(t: Tensor, steps: int | None, base: int = 2, growth: float = 2.0, most: int = 10) -> Tensor:
    """The same of times (B,)."""
    place = t - (1 / steps if steps else 0)
    return (base * (1 + growth * place) + 1e-4).floor().clamp(1, most).long()


def largest_count(base: int, growth: float, most: int) -> int:
    """Of all times."""
    return min(max(math.floor(base * (1 + growth)), 1), most)
