"""The worst and best samples of a pass, collected during it: memory holds only as many samples as are drawn at the end."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from vq.core import collectives
from vq.core.records import Batch, to_uint8
from vq.interfaces import Metric
from vq.io import atomic
from vq.io.pictures import grid, save_png
from vq.metrics.image import PSNR_CAP, MSEMetric
from vq.metrics.lpips import LPIPSMetric
from vq.metrics.samples import ImageMetric


@dataclasses.dataclass
class _Kept:
    distance: float
    key: int
    id: str
    image: Tensor  # (3, H, W) uint8, on the host
    made: Tensor


class Extremes:
    """The ``count`` samples of the largest and of the smallest distance, by LPIPS if it is measured, otherwise by MSE."""

    def __init__(self, count: int, metrics: Mapping[str, Metric]) -> None:
        self.count = count
        perceptual = [metric for metric in metrics.values() if isinstance(metric, LPIPSMetric)]
        self.metric: ImageMetric = perceptual[0] if perceptual else MSEMetric()
        self._worst: list[_Kept] = []
        self._best: list[_Kept] = []

    @torch.no_grad()
    def add(self, batch: Batch, reconstruction: Tensor) -> None:
        """Add a batch. Only its own ``count`` best and worst samples are copied to the host."""
        image = batch.pixels()
        made = to_uint8(reconstruction)
        whole, unit = self.metric.measure(image, made)
        distances = (whole.double() * unit).tolist()
        order = sorted(range(len(batch)), key=lambda row: (distances[row], batch.id[row]))
        rows = dict.fromkeys([*order[: self.count], *order[-self.count :]])
        keys = batch.key.tolist()
        found = [_Kept(distances[row], keys[row], batch.id[row], image[row].cpu(), made[row].cpu()) for row in rows]
        self._worst, self._best = self._ends([*self._worst, *self._best, *found])

    def _ends(self, kept: list[_Kept]) -> tuple[list[_Kept], list[_Kept]]:
        distinct = {each.key: each for each in reversed(kept)}  # if a sample is repeated, the first one counts
        ordered = sorted(distinct.values(), key=lambda each: (each.distance, each.id))
        return ordered[::-1][: self.count], ordered[: self.count]

    def write(self, folder: Path, gain: float) -> None:
        """Write ``worst.png``, ``best.png``, and ``extremes.json`` with their ids and distances. Every rank calls it."""
        parts = collectives.all_gather_object([*self._worst, *self._best])
        worst, best = self._ends([each for part in parts for each in part])
        if not worst or not collectives.is_main():
            return
        said: dict[str, Any] = {'by': self._name}
        for name, kept in (('worst', worst), ('best', best)):
            save_png(folder / f'{name}.png', sheet_of(kept, gain))
            said[name] = [{'id': each.id, self._name: self._figure(each.distance)} for each in kept]
        atomic.write_json(folder / 'extremes.json', said)

    @property
    def _name(self) -> str:
        return 'psnr' if isinstance(self.metric, MSEMetric) else self.metric.name

    def _figure(self, distance: float) -> float:
        if not isinstance(self.metric, MSEMetric):
            return distance
        return PSNR_CAP if distance <= 0 else min(-10 * math.log10(distance), PSNR_CAP)


def sheet_of(kept: list[_Kept], gain: float) -> Tensor:
    """A grid with a row of inputs, one of reconstructions and one of errors; smaller pictures are padded with white."""
    height, width = (max(each.image.shape[side] for each in kept) for side in (1, 2))
    rows: list[list[Tensor]] = [[], [], []]
    for each in kept:
        error = ((each.image.float() - each.made.float()).abs() * gain).clamp(max=255).round().to(torch.uint8)
        room = (0, width - each.image.shape[2], 0, height - each.image.shape[1])
        for row, picture in zip(rows, (each.image, each.made, error), strict=True):
            row.append(pad(picture, room, value=255))
    return grid(torch.stack([picture for row in rows for picture in row]), columns=len(kept))
