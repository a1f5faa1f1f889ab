"""Several perturbations in a row."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from vq.core.bindings import Source
from vq.core.errors import ConfigError
from vq.interfaces import Coding, Perturbation, Quantizer
from vq.registries import VQPerturbationRegistry


@VQPerturbationRegistry.register_()
class PerturbationChain(Perturbation):
    """``parts`` one after another, each on the output of the one before. The first can replace tokens or rounding."""

    binds: ClassVar[dict[str, Source]] = {'parts.*.channels': lambda settings: settings.get('channels')}

    def __init__(self, parts: list[Perturbation], channels: int | None = None) -> None:
        """``channels`` of parts with a learned vector that do not say theirs."""
        super().__init__()
        if not parts:
            raise ConfigError('a PerturbationChain has no parts', 'Give its parts, or leave it out.')
        self.parts = nn.ModuleList(parts)

    def check(self, channels: int, quantizer: Quantizer | None) -> None:
        for part in self.parts:
            assert isinstance(part, Perturbation)
            part.check(channels, quantizer)

    def forward(self, z: Tensor, coding: Coding | None = None) -> Tensor:
        for part in self.parts:
            z = part(z, coding)
        return z
