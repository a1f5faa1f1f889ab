"""Averages over samples that do not depend on how a pass was cut: batch size, order, ranks, repeated samples.

Every sample brings a whole number, so that no rounding depends on what shared its batch. The numbers stay on the device
until the pass is over; then all ranks exchange them, repeated samples are dropped by their key, and the rest is
averaged in float64 in the order of the keys.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vq.core import collectives
from vq.core.errors import ConfigError
from vq.core.records import Batch, Outputs, to_uint8
from vq.interfaces import Metric


def first_of_each(keys: Tensor) -> Tensor:
    """keys (n,) int64 -> the places (m,) of the first of each key, in the order of the keys."""
    order = torch.argsort(keys, stable=True)
    keys = keys[order]
    first = torch.ones_like(keys, dtype=torch.bool)
    first[1:] = keys[1:] != keys[:-1]
    return order[first]


def mean_of_distinct(keys: Tensor, values: Tensor) -> float:
    """Mean of values (n,) float64 over distinct keys (n,) int64; of a repeated key the first counts. NaN of nothing."""
    if not len(keys):
        return float('nan')
    return values[first_of_each(keys)].mean().item()


def on_cpu(parts: list[Tensor]) -> Tensor:
    """One int64 tensor of many small ones, in a single copy from the device."""
    return torch.cat(parts).cpu() if parts else torch.empty(0, dtype=torch.int64)


class SampleMetric(Metric):
    """Means over distinct samples of a whole number that each of them brings."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self._keys: list[Tensor] = []  # (B,) int64 each
        self._values: list[Tensor] = []  # (B,) int64 each
        self._units: list[float] = []  # one per sample

    def add(self, batch: Batch, values: Tensor, unit: float) -> None:
        """Whole numbers (B,) int64, and the figure that one unit of them stands for."""
        self._keys.append(batch.key)
        self._values.append(values)
        self._units += [unit] * len(values)

    def compute(self) -> dict[str, float]:
        figures = on_cpu(self._values).double() * torch.tensor(self._units, dtype=torch.float64)
        parts = collectives.all_gather_object((on_cpu(self._keys), figures))  # ranks may hold different numbers of samples
        keys, figures = torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])
        return {name: mean_of_distinct(keys, column) for name, column in self.finish(figures).items()}

    def finish(self, figures: Tensor) -> dict[str, Tensor]:
        """Figures (n,) float64 of single samples -> what is averaged, by the names of the results."""
        raise NotImplementedError


class ImageMetric(SampleMetric):
    """The mean over distinct images of a figure that compares 8-bit pictures with their reconstructions."""

    name: str

    def update(self, batch: Batch, outputs: Outputs) -> None:
        if outputs.reconstruction is None:
            raise ConfigError(
                f"the metric '{self.name}' needs reconstructions, and this tokenizer makes none",
                f'Leave {type(self).__name__} out of the metrics, or train a decoder for the tokenizer.',
            )
        image = batch.image if batch.image.dtype == torch.uint8 else to_uint8(batch.image)
        self.add(batch, *self.measure(image, to_uint8(outputs.reconstruction)))

    def finish(self, figures: Tensor) -> dict[str, Tensor]:
        return {self.name: self.convert(figures)}

    def measure(self, image: Tensor, reconstruction: Tensor) -> tuple[Tensor, float]:
        """Two uint8 (B, C, H, W) -> whole numbers (B,) int64, and the figure that one unit of them stands for."""
        raise NotImplementedError

    def convert(self, figures: Tensor) -> Tensor:
        """Figures (n,) float64 of single images -> those that are averaged."""
        return figures
