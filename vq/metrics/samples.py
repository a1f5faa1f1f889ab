"""Averages over samples that do not depend on batch size, order, ranks or repeated samples.

The value of a sample is an integer, so rounding does not depend on the other samples of its batch. Values stay on the device
until the end of the pass. Then all ranks exchange them, repeated samples are dropped by their key, and the rest is averaged
in float64 in the order of the keys.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vq.core import collectives
from vq.core.errors import ConfigError
from vq.core.records import Batch, Outputs, to_uint8
from vq.interfaces import Metric


def first_of_each(keys: Tensor) -> Tensor:
    """keys (n,) int64 -> indices (m,) of the first occurrence of each key, sorted by key."""
    order = torch.argsort(keys, stable=True)
    keys = keys[order]
    first = torch.ones_like(keys, dtype=torch.bool)
    first[1:] = keys[1:] != keys[:-1]
    return order[first]


def mean_of_distinct(keys: Tensor, values: Tensor) -> float:
    """Mean of values (n,) float64 over distinct keys (n,) int64; the first occurrence counts. NaN if empty."""
    if not len(keys):
        return float('nan')
    return values[first_of_each(keys)].mean().item()


def on_cpu(parts: list[Tensor]) -> Tensor:
    """One int64 tensor of many small ones, in a single device-to-host copy."""
    return torch.cat(parts).cpu() if parts else torch.empty(0, dtype=torch.int64)


class SampleMetric(Metric):
    """Means over distinct samples. The value of each sample is an integer."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self._keys: list[Tensor] = []  # (B,) int64 each
        self._values: list[Tensor] = []  # (B,) int64 each
        self._units: list[float] = []  # one per sample

    def add(self, batch: Batch, values: Tensor, unit: float) -> None:
        """Add integers (B,) int64; one unit of them stands for ``unit`` of the figure."""
        self._keys.append(batch.key)
        self._values.append(values)
        self._units += [unit] * len(values)

    def compute(self) -> dict[str, float]:
        figures = on_cpu(self._values).double() * torch.tensor(self._units, dtype=torch.float64)
        parts = collectives.all_gather_object((on_cpu(self._keys), figures))  # ranks may hold different numbers of samples
        keys, figures = torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])
        return {name: mean_of_distinct(keys, column) for name, column in self.finish(figures).items()}

    def finish(self, figures: Tensor) -> dict[str, Tensor]:
        """Figures (n,) float64 of single samples -> values to average, by the names of the results."""
        raise NotImplementedError


class ImageMetric(SampleMetric):
    """The mean over distinct images of a figure that compares 8-bit images with their reconstructions."""

    name: str

    def update(self, batch: Batch, outputs: Outputs) -> None:
        if outputs.reconstruction is None:
            raise ConfigError(
                f"the metric '{self.name}' needs reconstructions, and this tokenizer makes none",
                f'Leave {type(self).__name__} out of the metrics, or train a decoder for the tokenizer.',
            )
        image = batch.pixels()
        self.add(batch, *self.measure(image, to_uint8(outputs.reconstruction)))

    def finish(self, figures: Tensor) -> dict[str, Tensor]:
        return {self.name: self.convert(figures)}

    def measure(self, image: Tensor, reconstruction: Tensor) -> tuple[Tensor, float]:
        """Two uint8 (B, C, H, W) -> integers (B,) int64, and the value of one unit of them."""
        raise NotImplementedError

    def convert(self, figures: Tensor) -> Tensor:
        """Figures (n,) float64 of single images -> values to average."""
        return figures
