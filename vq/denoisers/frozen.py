"""A denoiser of a run, frozen: the weaker model of autoguidance."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from vq.core.bindings import Source
from vq.core.conditions import Condition
from vq.core.errors import UserError
from vq.core.records import Prediction
from vq.interfaces import Conditioned, Conditioner, Denoiser, Task
from vq.interfaces.denoisers import conditioned
from vq.io.kept_digest import KeptDigest
from vq.io.runs import Run, find, weight_files
from vq.io.weights import load_model_from
from vq.registries import VQDenoiserRegistry


def given(name: str) -> Source:
    """The owner's own setting."""

    def source(values: Mapping[str, Any]) -> Any:
        return values.get(name)

    return source


@VQDenoiserRegistry.register_()
class FrozenDenoiser(KeptDigest, Denoiser):
    """The denoiser and the conditioner that a run of diffusion trained, without gradients, always in eval mode.

    ``weights``: a name that ``vq.load`` takes, read by ``load_pretrained``. A digest of the file goes into checkpoints in
    place of the weights. ``channels`` and ``cells`` are those of the task that it guides.
    """

    noun = 'guide'
    binds: ClassVar[dict[str, Source]] = {
        'denoiser.channels': given('channels'),
        'denoiser.cells': given('cells'),
        'conditioner.dim': 'denoiser.dim',
        'conditioner.layout_dim': 'denoiser.layout_dim',
    }

    def __init__(
        self,
        denoiser: Denoiser,
        conditioner: Conditioner | None = None,
        weights: str | None = None,
        channels: int | None = None,
        cells: tuple[int, ...] | None = None,
    ) -> None:
        super().__init__()
        self.denoiser, self.conditioner, self.weights = denoiser, conditioner, weights
        self.kind, self.dim, self.channels, self.cells = denoiser.kind, denoiser.dim, channels, cells
        self.add_digest()
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> FrozenDenoiser:
        """Frozen: always in eval mode."""
        super().train(False)
        return self

    @torch.no_grad()
    def forward(self, z: Tensor, t: Tensor, condition: Conditioned | None = None) -> Prediction:
        prediction: Prediction = self.denoiser(z, t, condition)
        return prediction

    def rows(self, z: Tensor, t: Tensor, condition: Condition | None) -> Prediction:
        """The same, with its own conditioner."""
        prediction: Prediction = self(z, t, conditioned(self.denoiser, self.conditioner, condition, len(z)))
        return prediction

    # weights

    def pretrained_files(self) -> list[Path]:
        return weight_files(self.weights)

    def load_pretrained(self) -> None:
        holder = Task()
        holder.denoiser, holder.conditioner = self.denoiser, self.conditioner
        report = load_model_from(holder, [self._source()])
        self.keep_digest(report.sources[0].sha256, str(report.sources[0]))

    def _source(self) -> Run:
        if self.weights is None:
            raise UserError('the config does not say which run guides', 'Name a run of diffusion: guide=NAME.')
        return find(self.weights)
