"""Access paths into a config: ``.trainer.callbacks[-1].interval``. Parsed, never evaluated."""

from __future__ import annotations

import re
from collections.abc import Mapping, MutableMapping
from typing import Any

from vq.core.errors import ConfigError, listing, nearest

Step = str | int

_NAME = re.compile(r'[A-Za-z_]\w*')
_STEP = re.compile(r"""\.(?P<name>[A-Za-z_]\w*)|\[(?P<index>-?\d{1,18})\]|\[(?P<key>'[^']*'|"[^"]*")\]""")


def parse_path(path: str) -> list[Step]:
    """``.a.b[-1]['c d']`` -> ``['a', 'b', -1, 'c d']``."""
    steps: list[Step] = []
    position = 0
    while position < len(path):
        match = _STEP.match(path, position)
        if match is None:
            raise ConfigError(
                f"override path '{path}' cannot be read at column {position + 1}",
                'Write it as .name.name[index], starting with a dot, and quote it, or the shell may change its brackets: '
                "'.trainer.callbacks[-1].interval=50'",
            )
        if match['index'] is not None:
            steps.append(int(match['index']))
        else:
            steps.append(match['name'] or match['key'][1:-1])
        position = match.end()
    if not steps:
        raise ConfigError('an override path is empty', 'Write it as .name.name[index], starting with a dot.')
    return steps


def format_path(steps: list[Step]) -> str:
    """The inverse of ``parse_path``."""
    return ''.join(f'.{step}' if isinstance(step, str) and _NAME.fullmatch(step) else f'[{step!r}]' for step in steps)


def descend(root: Any, steps: list[Step], whole: str) -> Any:
    """Follow ``steps`` from ``root``; all of them must exist. ``whole`` is the path as the user wrote it."""
    node = root
    for depth, step in enumerate(steps):
        here = format_path(steps[:depth]) or 'the config'
        if isinstance(step, int) and not (isinstance(node, Mapping) and step in node):
            count = _positions(node)
            if count is None or not -count <= step < count:
                size = 'is not a list' if count is None else f'has {count} entries'
                raise ConfigError(
                    f"override '{whole}': {here} {size}, so [{step}] does not exist",
                    f'Print the config with vq config CONFIG and look at {here}.',
                )
        elif not isinstance(node, Mapping) or step not in node:
            known = list(node.keys()) if isinstance(node, Mapping) else []
            what = f"has no '{step}'" if isinstance(node, Mapping) else f'is a {type(node).__name__}, not a part'
            raise ConfigError(
                f"override '{whole}': {here} {what}{nearest(str(step), map(str, known))}",
                f'It has: {listing(map(str, known)) or "nothing"}.',
            )
        node = node[step]
    return node


def _positions(node: Any) -> int | None:
    """The number of entries that an index can reach, in a list or in named parts (``vq.core.parts``)."""
    if hasattr(type(node), 'name_at'):
        return len(node.names())
    return len(node) if isinstance(node, list | tuple) else None


def assign(root: Any, steps: list[Step], value: Any, whole: str) -> bool:
    """Set the value at ``steps``; True if the last key is new (the caller checks whether it is allowed)."""
    parent, step = descend(root, steps[:-1], whole), steps[-1]
    here = format_path(steps[:-1]) or 'the config'
    if isinstance(parent, MutableMapping) and (isinstance(step, str) or step in parent):
        new = step not in parent
        parent[step] = value
        return new
    if isinstance(step, int):
        descend(root, steps, whole)
    by_position = isinstance(parent, list) or (isinstance(parent, MutableMapping) and _positions(parent) is not None)
    if not by_position or not isinstance(step, int):
        raise ConfigError(
            f"override '{whole}': {here} is a {type(parent).__name__}, in which nothing can be set",
            f'Override {here} as a whole.',
        )
    parent[step] = value
    return False
