"""Losses of energies, beside the error of their gradients: the shape of the landscape, and the step that descends it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from vq.core.errors import ConfigError
from vq.interfaces import ActsOn, Loss
from vq.interfaces.losses import Landscape
from vq.registries import VQLossRegistry
from vq.sampling.descent import Accept, Descent, check, counts_at, descend, largest_count
from vq.sampling.predictions import data_and_noise, noised


@VQLossRegistry.register_()
class ContrastiveEnergyLoss(Loss):
    """softplus(E(z) - E(z')),  the cross-entropy of (-E(z), -E(z')): data have less energy than what is not.

    z' is made of a wrong sample, x0 + ``spread`` n, noised with the noise of z; the inner loop descends from there, with the
    step size of the denoiser; x0' is the denoiser's estimate at its end, within ``limit``; z' is x0' with the noise of z.
    """

    acts_on: ActsOn = 'energy'

    def __init__(
        self,
        weight: float = 0.05,
        spread: float = 3.0,
        limit: float | None = 2.0,
        count: int = 2,
        growth: float = 2.0,
        most: int = 10,
        accept: Accept = 'lower',
    ) -> None:
        super().__init__()
        check(accept, False, 1.0)
        if not spread > 0 or count < 1 or most < 1 or growth < 0:
            raise ConfigError(
                f'spread is {spread}, with {count} steps, at most {most}, and growth {growth}',
                'Give a spread above 0, 1 step or more, and a growth of 0 or more.',
            )
        self.weight, self.spread, self.limit, self.accept = weight, spread, limit, accept
        self.count, self.growth, self.most = count, growth, most

    def negative(self, landscape: Landscape) -> Tensor:
        """z' (B, C, *cells), without a graph."""
        with torch.no_grad():
            wrong = landscape.x0 + self.spread * landscape.noise('negative')
            found = descended(self, landscape, noised(wrong, landscape.eps, landscape.level), self.accept)
            x0, _ = data_and_noise(landscape.evaluate(found.z), found.z, landscape.level)
            x0 = x0 if self.limit is None else x0.clamp(-self.limit, self.limit)
            return noised(x0, landscape.eps, landscape.level)

    def forward(self, landscape: Landscape) -> Tensor:
        here, there = landscape.prediction.energy, landscape.evaluate(self.negative(landscape)).energy
        assert here is not None and there is not None
        landscape.notes['contrast_gap'] = (there - here).detach().mean()
        return F.softplus(here - there).mean()


@VQLossRegistry.register_()
class RefinementLoss(Loss):
    """softplus(-mean of d_k + ``penalty`` variance of d_k),  d_k = E_k-1 - E_k,  over the steps of the inner loop from z.

    A mean over samples. It falls when the loop descends further, and evenly. It trains the step size, and the network.

    A step that raises the energy has d_k < 0. By default it counts: were it rejected, a step size that is too long would have
    no gradient. With ``recompute`` a step keeps only its input, and runs again in backward.
    """

    acts_on: ActsOn = 'energy'

    def __init__(
        self,
        weight: float = 0.1,
        penalty: float = 0.1,
        limit: float | None = 2.0,
        count: int = 2,
        growth: float = 2.0,
        most: int = 10,
        accept: Accept = 'always',
        recompute: bool = True,
    ) -> None:
        super().__init__()
        check(accept, False, 1.0)
        if not penalty >= 0 or count < 1 or most < 1 or growth < 0:
            raise ConfigError(
                f'penalty is {penalty}, with {count} steps, at most {most}, and growth {growth}',
                'Give a penalty and a growth of 0 or more, and 1 step or more.',
            )
        self.weight, self.penalty, self.limit, self.accept = weight, penalty, limit, accept
        self.count, self.growth, self.most, self.recompute = count, growth, most, recompute

    def forward(self, landscape: Landscape) -> Tensor:
        found = descended(self, landscape, landscape.z, self.accept, self.recompute)
        with torch.no_grad():
            landscape.notes['accept_rate'] = found.rate
            landscape.notes['energy_gap'] = found.drops.sum(0).mean()
        return refinement(found.drops, found.tried, self.penalty)


def refinement(drops: Tensor, tried: Tensor, penalty: float = 0.1) -> Tensor:
    """() of drops (K, B) of the energy, those that ``tried`` (K, B) has."""
    count = tried.sum(0).clamp(min=1)
    mean = (drops * tried).sum(0) / count
    variance = ((drops - mean).square() * tried).sum(0) / count
    return F.softplus(-mean + penalty * variance).mean()


def descended(
    loss: ContrastiveEnergyLoss | RefinementLoss, landscape: Landscape, z: Tensor, accept: Accept, recompute: bool = False
) -> Descent:
    """The inner loop from ``z`` at the times of the step, with the step size of the denoiser."""
    return descend(
        landscape.evaluate,
        z,
        largest_count(loss.count, loss.growth, loss.most),
        landscape.size,
        accept=accept,
        limit=None if loss.limit is None else loss.limit * torch.as_tensor(landscape.level.alpha),
        counts=counts_at(landscape.t, landscape.steps, loss.count, loss.growth, loss.most),
        recompute=recompute,
    )
