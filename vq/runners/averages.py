"""Moving averages of the weights among the callbacks of a run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from vq.interfaces import Callback


@runtime_checkable
class KeepsAverage(Protocol):
    """A callback with a moving average, which stands in checkpoints beside the weights."""

    shadow: dict[str, Tensor]

    def load_shadow(self, shadow: Mapping[str, Tensor]) -> None: ...


def averages_of(callbacks: Iterable[Callback[Any]]) -> list[KeepsAverage]:
    return [callback for callback in callbacks if isinstance(callback, KeepsAverage)]
