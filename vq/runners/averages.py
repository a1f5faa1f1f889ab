"""The callbacks of a run that hold a moving average of the weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from vq.interfaces import Callback


@runtime_checkable
class KeepsAverage(Protocol):
    """A callback with a moving average of the weights, which checkpoints store next to the weights."""

    shadow: dict[str, Tensor]

    def load_shadow(self, shadow: Mapping[str, Tensor]) -> None: ...


def averages_of(callbacks: Iterable[Callback[Any]]) -> list[KeepsAverage]:
    return [callback for callback in callbacks if isinstance(callback, KeepsAverage)]
