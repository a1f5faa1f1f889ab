"""Where compiled parts must run as they were written."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def eager() -> Iterator[None]:
    """Compiled parts that are called in here run uncompiled: torch.compile's programs cannot be differentiated twice."""
    if 'torch._dynamo' not in sys.modules:  # nothing was compiled, and importing the compiler takes a second
        yield
        return
    with torch.compiler.set_stance('force_eager'):
        yield
