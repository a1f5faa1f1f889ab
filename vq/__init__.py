"""vq: image tokenizers, and generators of their tokens.

``vq.load('NAME')`` loads a trained model, ``vq.run_training(config, name='NAME')`` trains one.
"""

from __future__ import annotations

import sys
from typing import Any

if sys.platform == 'win32':
    raise ImportError(
        'vq runs on Linux and macOS, not on Windows: runs are locked by POSIX record locks, and ranks are ended by signals. '
        'Use WSL 2, which is Linux.'
    )

__version__ = '0.1.0'
__all__ = ['__version__', 'load', 'run_training']


def __getattr__(name: str) -> Any:
    # torch is imported on first use only, so that commands start fast
    if name == 'load':
        from vq.loading import load

        return load
    if name == 'run_training':
        from vq.training import run_training

        return run_training
    raise AttributeError(f"module 'vq' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
