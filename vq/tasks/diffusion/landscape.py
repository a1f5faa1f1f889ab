"""What the task of diffusion does for energies: losses on them, and figures of inner loops."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from vq.core.errors import ConfigError, listing
from vq.denoisers.energy import energy_of
from vq.interfaces import Denoiser, Loss
from vq.losses.energy import RefinementLoss
from vq.sampling.descent import Descent


def check_energy(denoiser: Denoiser, losses: Mapping[str, Loss], names: Sequence[str]) -> None:
    """``names``: of the losses that act on energies."""
    energy = energy_of(denoiser)
    if names and energy is None:
        raise ConfigError(
            f'losses on energies ({listing(names)}), and the denoiser is a {type(denoiser).__name__}',
            "Wrap it: denoiser=dict(type='Energy', denoiser=...).",
        )
    learned = energy is not None and energy.learn_step
    if learned != any(isinstance(losses[name], RefinementLoss) for name in names):
        raise ConfigError(
            'a learned step size and the RefinementLoss, which trains it, go together',
            'Set learn_step=True and add a RefinementLoss, or neither.',
        )


class DescentTotals:
    """Sums over inner loops: the share of accepted steps, and how far a loop lowers the energy of a sample."""

    def __init__(self) -> None:
        self.sums: Tensor | None = None

    def add(self, found: Descent) -> None:
        drop = (found.energies[0] - found.energies[-1]).double()
        parts = (found.accepted.sum(), found.tried.sum(), drop.sum(), torch.ones_like(drop).sum())
        sums = torch.stack([part.double() for part in parts])
        self.sums = sums if self.sums is None else self.sums + sums

    def take(self) -> dict[str, Tensor]:
        """Both figures since the last call; nothing without an inner loop."""
        sums, self.sums = self.sums, None
        if sums is None:
            return {}
        return {'accept_rate': sums[0] / sums[1], 'energy_gap': sums[2] / sums[3]}
