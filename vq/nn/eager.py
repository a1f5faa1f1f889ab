"""A context in which compiled modules run uncompiled."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def eager() -> Iterator[None]:
    """Compiled modules called in this context run uncompiled: graphs of torch.compile have no second derivatives."""
    if 'torch._dynamo' not in sys.modules:  # nothing was compiled, and importing the compiler takes a second
        yield
        return
    with torch.compiler.set_stance('force_eager'):
        yield
