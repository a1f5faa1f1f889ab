"""Functions that the ranks of the gloo pool run."""

from __future__ import annotations

import torch
from torch import Tensor

from vq.core import collectives


def who() -> tuple[int, int, bool]:
    return collectives.rank(), collectives.size(), collectives.is_main()


def reduce_strided(operation: str) -> tuple[Tensor, Tensor]:
    """(result, input afterwards) for a transposed input."""
    value = (torch.arange(6.0).view(2, 3) * (1 if collectives.rank() == 0 else -2)).t()
    return collectives.all_reduce(value, operation), value


def reduce_hard_sums() -> Tensor:
    """A sum whose bits depend on the order of summation."""
    value = torch.randn(1000, generator=torch.Generator().manual_seed(collectives.rank())) * 10.0 ** (8 * collectives.rank())
    return collectives.all_reduce(value)


def reduce_with_gradient() -> bool:
    return collectives.all_reduce(torch.ones(2, requires_grad=True)).requires_grad


def gather() -> tuple[list[Tensor], list[Tensor]]:
    rank = collectives.rank()
    return collectives.all_gather(torch.full((2, 2), rank).t()), collectives.all_gather(torch.tensor(rank == 1))


def gather_objects() -> list[dict[str, int]]:
    collectives.barrier()
    return collectives.all_gather_object({'rank': collectives.rank()} if collectives.rank() else {})


def broadcast_from(source: int) -> tuple[Tensor, Tensor]:
    value = torch.full((3,), float(collectives.rank()))
    return collectives.broadcast(value, source), value
