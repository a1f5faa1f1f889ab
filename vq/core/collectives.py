"""The collective operations of models and metrics, independent of the back end.

The default back end is a single process, where every operation is the identity; a strategy installs another one. XLA's
SPMD keeps the default: one program sees the whole batch.
"""

from __future__ import annotations

from typing import Any, Literal, Protocol

import torch
from torch import Tensor

Operation = Literal['sum', 'max', 'min']


class Collectives(Protocol):
    """The operations of a back end."""

    rank: int
    size: int

    def all_reduce(self, value: Tensor, operation: Operation) -> Tensor: ...
    def all_gather(self, value: Tensor) -> list[Tensor]: ...
    def all_gather_object(self, value: Any) -> list[Any]: ...
    def broadcast(self, value: Tensor, source: int) -> Tensor: ...
    def barrier(self) -> None: ...


class SingleProcess:
    """Every operation is the identity."""

    rank = 0
    size = 1

    def all_reduce(self, value: Tensor, operation: Operation) -> Tensor:
        return value

    def all_gather(self, value: Tensor) -> list[Tensor]:
        return [value]

    def all_gather_object(self, value: Any) -> list[Any]:
        return [value]

    def broadcast(self, value: Tensor, source: int) -> Tensor:
        return value

    def barrier(self) -> None:
        return None


class TorchDistributed:
    """``torch.distributed`` over the default process group (nccl or gloo)."""

    def __init__(self) -> None:
        import torch.distributed as distributed

        self._distributed = distributed
        self.rank = distributed.get_rank()
        self.size = distributed.get_world_size()

    def all_reduce(self, value: Tensor, operation: Operation) -> Tensor:
        operations = self._distributed.ReduceOp
        kinds = {'sum': operations.SUM, 'max': operations.MAX, 'min': operations.MIN}
        result = value.detach().clone(memory_format=torch.contiguous_format)
        self._distributed.all_reduce(result, op=kinds[operation])
        return result

    def all_gather(self, value: Tensor) -> list[Tensor]:
        value = value.detach().contiguous()
        parts = [torch.empty_like(value) for _ in range(self.size)]
        self._distributed.all_gather(parts, value)
        return parts

    def all_gather_object(self, value: Any) -> list[Any]:
        parts: list[Any] = [None] * self.size
        self._distributed.all_gather_object(parts, value)
        return parts

    def broadcast(self, value: Tensor, source: int) -> Tensor:
        result = value.detach().clone(memory_format=torch.contiguous_format)
        self._distributed.broadcast(result, src=source)
        return result

    def barrier(self) -> None:
        self._distributed.barrier()


_installed: Collectives = SingleProcess()


def install(collectives: Collectives | None) -> None:
    """Set the back end of this process; ``None`` restores the single process."""
    global _installed
    _installed = SingleProcess() if collectives is None else collectives


def rank() -> int:
    return _installed.rank


def size() -> int:
    return _installed.size


def is_main() -> bool:
    return _installed.rank == 0


def all_reduce(value: Tensor, operation: Operation = 'sum') -> Tensor:
    """The elementwise sum, max or min over ranks, bitwise equal on all of them; the input is not changed."""
    return _installed.all_reduce(value, operation)


def all_gather(value: Tensor) -> list[Tensor]:
    """The tensors of all ranks, in order of rank; all must have the same shape."""
    return _installed.all_gather(value)


def all_gather_object(value: Any) -> list[Any]:
    """Small objects of all ranks, by pickle: between the processes of one run only, never for files."""
    return _installed.all_gather_object(value)


def broadcast(value: Tensor, source: int = 0) -> Tensor:
    return _installed.broadcast(value, source)


def barrier() -> None:
    _installed.barrier()
