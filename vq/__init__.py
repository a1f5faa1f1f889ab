"""vq: image tokenizers, and generators of their tokens. ``vq.load('NAME')`` loads a trained model."""

from __future__ import annotations

from typing import Any

__version__ = '0.1.0'
__all__ = ['__version__', 'load']


def __getattr__(name: str) -> Any:
    # torch is imported on first use only, so that commands start fast
    if name == 'load':
        from vq.loading import load

        return load
    raise AttributeError(f"module 'vq' has no attribute '{name}'")
