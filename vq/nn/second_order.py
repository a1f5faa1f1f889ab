"""Second derivatives: attention that has them, also where blocks recompute their activations."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any

from torch.nn.attention import SDPBackend, sdpa_kernel

_ACTIVE: ContextVar[bool] = ContextVar('second_order', default=False)


@contextmanager
def second_order() -> Iterator[None]:
    """``scaled_dot_product_attention`` inside is computed by matrix products and softmax, which can be differentiated twice.
    The fused kernels have no second derivative, on CPU and GPU (pytorch#116350)."""
    token = _ACTIVE.set(True)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        _ACTIVE.reset(token)


class _Again:
    """``second_order``, entered at every recomputation: two backward passes have one each."""

    def __enter__(self) -> None:
        self.inner = second_order()
        self.inner.__enter__()

    def __exit__(self, *error: Any) -> None:
        self.inner.__exit__(*error)


def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """For ``checkpoint``: the context of the first pass, and that of the recomputation, which comes after ``second_order``
    was left."""
    return nullcontext(), _Again()


def is_second_order() -> bool:
    return _ACTIVE.get()
