"""Contexts for results that must not depend on the run's precision settings: autocast off, matrix products in true fp32."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch

EXACT = ('none', 'ieee')


def no_autocast(device: torch.device) -> AbstractContextManager[object]:
    """Autocast off on a device; the meta device has none."""
    return nullcontext() if device.type == 'meta' else torch.autocast(device.type, enabled=False)


def exact_matmul() -> AbstractContextManager[None]:
    """fp32 matrix products without TF32 or bf16 shortcuts, whatever the run allows elsewhere."""
    torch_backends: Any = torch.backends  # its submodules are built at run time, so mypy does not find them
    return _exact((torch_backends.cuda.matmul, torch_backends.mkldnn.matmul))


def exact_products() -> AbstractContextManager[None]:
    """``exact_matmul`` for convolutions as well, which use TF32 on a GPU by default."""
    torch_backends: Any = torch.backends
    matmul = torch_backends.cuda.matmul, torch_backends.mkldnn.matmul
    return _exact((*matmul, torch_backends.cudnn.conv, torch_backends.mkldnn.conv))


@contextmanager
def _exact(backends: Iterable[Any]) -> Iterator[None]:
    """Change only settings that allow less than fp32, and restore them. After a change torch raises if code reads a setting by
    its old name and the old name cannot express the value.
    """
    loose = [(backend, backend.fp32_precision) for backend in backends if backend.fp32_precision not in EXACT]
    for backend, _ in loose:
        backend.fp32_precision = 'ieee'
    try:
        yield
    finally:
        for backend, before in loose:
            backend.fp32_precision = before
