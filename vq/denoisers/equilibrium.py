"""Equilibrium matching: a gradient field without time, whose still points are data."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from vq.core.bindings import Source
from vq.core.errors import ConfigError
from vq.core.records import Prediction
from vq.denoisers.frozen import given
from vq.interfaces import Conditioned, Denoiser
from vq.registries import VQDenoiserRegistry
from vq.sampling.predictions import spread
from vq.sampling.times import strength


@VQDenoiserRegistry.register_()
class Equilibrium(Denoiser):
    """f(z) = ``scale`` c(t) (eps - x0)  for z = (1 - t) x0 + t eps  (Wang and Du 2025, truncated decay), the same f at all t.

    ``denoiser`` is any denoiser of the velocity, or an ``Energy`` of one: it is told the same time for all z. The estimate is
    f(z) / (scale c(t)), the velocity. Train it on ``FlowPath`` with ``EquilibriumTimes`` of the same ``decay``, whose weights
    c(t)^2 turn the error of the velocity into that of f. Draw with ``GradientDescent``: samplers that follow a path in time
    would ask for the direction alone.
    """

    compiles = 'forward'
    timeless = True
    binds: ClassVar[dict[str, Source]] = {'denoiser.channels': given('channels'), 'denoiser.cells': given('cells')}

    def __init__(
        self, denoiser: Denoiser, channels: int, cells: tuple[int, ...], decay: float = 0.8, scale: float = 4.0
    ) -> None:
        super().__init__()
        if not 0 <= decay < 1 or not scale > 0:
            raise ConfigError(f'decay is {decay} and scale {scale}', 'Give a decay from 0 to below 1, and a scale above 0.')
        if denoiser.kind != 'velocity':
            raise ConfigError(f'the denoiser estimates {denoiser.kind}', "Set its kind to 'velocity'.")
        self.denoiser, self.channels, self.cells = denoiser, channels, tuple(cells)
        self.kind, self.dim, self.takes = denoiser.kind, denoiser.dim, denoiser.takes
        self.grid = getattr(denoiser, 'grid', self.cells)
        self.decay, self.scale = decay, scale
        self.compiles = denoiser.compiles

    def field(self, z: Tensor, condition: Conditioned | None = None) -> Prediction:
        """f(z), and its energy if there is one."""
        found: Prediction = self.denoiser(z, torch.ones(len(z), device=z.device), condition)
        return found

    def forward(self, z: Tensor, t: Tensor, condition: Conditioned | None = None) -> Prediction:
        found, size = self.field(z, condition), self.scale * strength(t, self.decay)
        energy = None if found.energy is None else found.energy / size
        return Prediction(found.value / spread(size, z), 'velocity', energy=energy)
