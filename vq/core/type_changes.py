"""Which types of parts a merge or an override has replaced by another type, so that an error about their settings can say why.

A part with another type keeps the settings of the part before it, unless it is replaced whole. The record is of the process:
it only decides what the hint of an error says.
"""

from __future__ import annotations

from typing import Any

_before: dict[str, set[str]] = {}  # new type -> earlier types


def note(old: Any, new: Any) -> None:
    if isinstance(old, str) and isinstance(new, str) and _short(old) != _short(new):
        _before.setdefault(_short(new), set()).add(_short(old))


def hint(kind: str, path: str) -> str:
    """What to do if ``kind`` at ``path`` has settings of the type before it; empty if no part became a ``kind``."""
    earlier = _before.get(_short(kind))
    if not earlier:
        return ''
    name = path.rpartition('.')[2]
    return (
        f'The type of this part was changed ({" or ".join(sorted(earlier))} before), and the settings of that one stay. '
        f"Replace it whole: {name}=dict(_delete_=True, type='{_short(kind)}', ...) in a config file, "
        f'\'.{path}:dict(type="{_short(kind)}", ...)\' on the command line.'
    )


def _short(kind: str) -> str:
    return kind.rpartition('.')[2]
