"""Migrations of checkpoint formats that are no longer written, each to the next version."""

from __future__ import annotations

from typing import Any

from vq.core.phases import name_of


def name_callbacks(contents: dict[str, Any]) -> dict[str, Any]:
    """1 -> 2. Callback states were a list of pairs ``['EMACallback#0', state]``: class and number in the list, state.

    They become a dict under the names that these callbacks have now. OptimizeCallback had no state and no longer exists.
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
