"""Published sizes of transformers, by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from vq.core.errors import ConfigError, listing, nearest


class Size(NamedTuple):
    depth: int
    dim: int
    heads: int


def size_named(name: str, sizes: Mapping[str, Size]) -> dict[str, int]:
    """``depth``, ``dim`` and ``heads``, as settings of a constructor."""
    if name not in sizes:
        raise ConfigError(f"there is no size '{name}'{nearest(name, sizes)}", f'There are: {listing(sizes)}.')
    return sizes[name]._asdict()
