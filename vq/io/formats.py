"""Checkpoint formats that are no longer written, and how each becomes the next one."""

from __future__ import annotations

from typing import Any

from vq.core.phases import name_of


def name_callbacks(contents: dict[str, Any]) -> dict[str, Any]:
    """1 -> 2. States of callbacks were pairs ``['EMACallback#0', state]``, of the class and its number in the list.

    They go by the names that a list of these classes has now. An OptimizeCallback had no state, and is none any more.
    """
    for part in ('training', 'per_rank'):
        state = contents[part]
        if state is not None and isinstance(state.get('callbacks'), list):
            contents[part] = {**state, 'callbacks': _named(state['callbacks'])}
    return contents


def _named(pairs: list[Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, state in pairs:
        kind = key.rpartition('#')[0]
        if kind != 'OptimizeCallback':
            found[name_of(kind, found)] = state
    return found
