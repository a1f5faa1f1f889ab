"""The base of all other packages: config, registry, records, collectives, random streams.

The only package that imports todd. ``from vq.core import PyConfig`` works in config files; it is loaded on first use,
so that ``--help`` imports neither todd nor torch.
"""

from __future__ import annotations

from typing import Any

__all__ = ['PyConfig']


def __getattr__(name: str) -> Any:
    if name == 'PyConfig':
        from vq.core.config import PyConfig

        return PyConfig
    raise AttributeError(f"module 'vq.core' has no attribute '{name}'")
