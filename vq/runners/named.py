"""Callbacks of a runner by name, from a dict or from a list."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

from vq.core.phases import name_of
from vq.interfaces import Callback

R = TypeVar('R')
Callbacks: TypeAlias = dict[str, Callback[R]] | list[Callback[R]] | None


def named(callbacks: Mapping[str, Callback[R]] | Sequence[Callback[R]] | None) -> dict[str, Callback[R]]:
    """A dict as it is. Callbacks of a list get names from their classes, in the order of the list."""
    if isinstance(callbacks, Mapping):
        return dict(callbacks)
    found: dict[str, Callback[R]] = {}
    for callback in callbacks or ():
        add(found, callback)
    return found


def add(callbacks: dict[str, Callback[Any]], callback: Callback[Any]) -> None:
    """Append a callback under a new name, made from its class."""
    callbacks[name_of(type(callback), callbacks)] = callback
