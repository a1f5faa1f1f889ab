"""Numbers that must not depend on the run's precision settings: autocast off, and matrix products in true fp32."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch

EXACT = ('none', 'ieee')


def no_autocast(device: torch.device) -> AbstractContextManager[object]:
    """Autocast off on a device; the meta device has none."""
    return nullcontext() if device.type == 'meta' else torch.autocast(device.type, enabled=False)


@contextmanager
def exact_matmul() -> Iterator[None]:
    """fp32 matrix products without TF32 or bf16 shortcuts, whatever the run allows elsewhere.

    Settings are touched only where they are loose, and put back: torch refuses to read them through its old names
    once the new ones have changed them to something the old ones cannot say.
    """
    torch_backends: Any = torch.backends  # its submodules are built at run time, out of the type checker's sight
    backends = (torch_backends.cuda.matmul, torch_backends.mkldnn.matmul)
    loose = [(backend, backend.fp32_precision) for backend in backends if backend.fp32_precision not in EXACT]
    for backend, _ in loose:
        backend.fp32_precision = 'ieee'
    try:
        yield
    finally:
        for backend, before in loose:
            backend.fp32_precision = before
