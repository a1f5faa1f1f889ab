"""Callbacks of a runner by name, whether they come by name or as a list."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

from vq.core.phases import name_of
from vq.interfaces import Callback

R = TypeVar('R')
Callbacks: TypeAlias = dict[str, Callback[R]] | list[Callback[R]] | None


def named(callbacks: Mapping[str, Callback[R]] | Sequence[Callback[R]] | None) -> dict[str, Callback[R]]:
    """A list's are called after their classes, in its order."""
    if isinstance(callbacks, Mapping):
        return dict(callbacks)
    found: dict[str, Callback[R]] = {}
    for callback in callbacks or ():
        add(found, callback)
    return found


def add(callbacks: dict[str, Callback[Any]], callback: Callback[Any]) -> None:
    """At the end, under a name of its own."""
    callbacks[name_of(type(callback), callbacks)] = callback
