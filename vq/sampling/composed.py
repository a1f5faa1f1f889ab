"""Several conditions at once, by the sum of their energies."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from vq.core.conditions import Condition
from vq.core.errors import ConfigError
from vq.core.records import Prediction
from vq.interfaces.denoisers import Denoise


@dataclasses.dataclass
class Composed:
    """E(z) + s sum_i (E(z, c_i) - E(z)),  and the same of the estimates. A ``Denoise``.

    With s = 1 it is the energy of  p(z) prod_i p(z | c_i) / p(z):  what all conditions agree on (Du and others 2023). With one
    condition it is guidance. ``conditions``: of B rows each; they take the place of that of the sampler.
    """

    denoise: Denoise
    conditions: Sequence[Condition]
    scale: float = 1.0

    def __post_init__(self) -> None:
        if not self.conditions:
            raise ConfigError('no condition to compose', 'Give one or more.')
        self._nothing: Condition | None = None  # one object: a denoiser can keep what it makes of each condition

    def __call__(self, z: Tensor, t: float, condition: Condition | None, /) -> Prediction:
        if self._nothing is None:
            self._nothing = self.conditions[0].without(torch.ones(len(z), dtype=torch.bool, device=z.device))
        base, *others = (self.denoise(z, t, one) for one in (self._nothing, *self.conditions))
        value = base.value + self.scale * sum(other.value - base.value for other in others)
        energy = base.energy
        if energy is not None:
            energy = energy + self.scale * sum(other.energy - energy for other in others if other.energy is not None)
        return Prediction(value, base.kind, energy=energy)
