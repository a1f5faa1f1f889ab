"""Metrics, and the networks whose features they compare."""

from __future__ import annotations

from typing import Any, NamedTuple, Self

from torch import Tensor, nn

from vq.core.records import Batch, Outputs
from vq.interfaces.pretrained import Pretrained


class Features(NamedTuple):
    """The output of a feature network, in one form for all networks; metrics read it."""

    pooled: Tensor  # (B, D) fp32
    logits: Tensor | None = None  # (B, classes)
    spatial: Tensor | None = None  # (B, S)


class FeatureNetwork(nn.Module, Pretrained):
    """uint8 images (B, 3, H, W) of any size -> ``Features``. Frozen, and always in eval mode."""

    dimension: int  # D

    @property
    def description(self) -> dict[str, str]:
        """What metric values depend on besides the weights: the network, its preprocessing, its precision."""
        raise NotImplementedError

    def train(self, mode: bool = True) -> Self:
        return super().train(False)

    def forward(self, image: Tensor) -> Features:
        raise NotImplementedError


class Metric:
    """Accumulates over a validation pass. ``update`` makes no host sync; ``compute`` may call collectives."""

    network: nn.Module | None = None  # its frozen feature network: the runner loads it and moves it to the device

    def reset(self) -> None:
        raise NotImplementedError

    def update(self, batch: Batch, outputs: Outputs) -> None:
        raise NotImplementedError

    def compute(self) -> dict[str, float]:
        raise NotImplementedError

    def describe(self) -> dict[str, Any]:
        """Called after ``compute``: the settings that the values depend on, to be recorded with the result."""
        return {}
