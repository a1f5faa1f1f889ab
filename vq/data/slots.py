"""The memory that brings batches from a worker to the main process: shared, and used again for later batches.

New shared memory costs a page fault per 4 KB in both processes and a message with a file descriptor: most of the time of
images that are only copied. Here each worker has a few slots. The main process keeps them mapped, and a slot is free again
once no tensor of the main process refers to it. So a batch can be kept for as long as its user likes: where all slots of a
worker are in use, it takes new memory.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from vq.core.records import Batch

SMALL = 2**16  # bytes: up to here a tensor is sent as a message, which is faster than a file descriptor
CAN_COUNT = hasattr(torch._C, '_storage_Use_Count')  # private: without it, all memory is new

_numbers = itertools.count()
_open: WeakValueDictionary[int, Slots] = WeakValueDictionary()  # of this process


class Where(NamedTuple):
    """Where the images of a batch lie."""

    slots: int  # the number of the ``Slots``
    worker: int
    slot: int
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


class Message(NamedTuple):
    """A small tensor on its way."""

    array: np.ndarray


@dataclasses.dataclass
class Loan:
    """The slot that a worker takes for the images of one batch."""

    slots: Slots
    worker: int
    slot: int | None = None

    def take(self, size: int) -> Tensor | None:
        """``size`` bytes (flat uint8) of a free slot. None: there is none, or the batch has a slot already."""
        memory, free = self.slots.memory, self.slots.free[self.worker]
        found = [slot for slot, flag in enumerate(free.tolist()) if flag]  # one look: the main process may free more meanwhile
        if self.slot is not None or not found:
            return None
        fits = [slot for slot in found if (self.worker, slot) in memory and memory[self.worker, slot].nbytes() >= size]
        self.slot = (fits or found)[0]
        free[self.slot] = 0
        if not fits:
            memory[self.worker, self.slot] = new_memory(size)
            self.slots.known.discard(self.slot)
        return _tensor(memory[self.worker, self.slot]).narrow(0, 0, size)

    def sent(self, batch: Batch | None) -> tuple[Batch | None, Where | None]:
        """The batch as a message, and the place of its images if they are in the slot."""
        image = None if batch is None else batch.image
        where = None
        if self.slot is not None:
            memory = self.slots.memory[self.worker, self.slot]
            if image is None or image.untyped_storage().data_ptr() != memory.data_ptr():
                self.slots.free[self.worker, self.slot] = 1
            else:
                where = Where(
                    self.slots.number, self.worker, self.slot, int(image.storage_offset()), tuple(image.shape), image.stride()
                )
        if batch is None:
            return None, where
        batch = _changed(batch, _as_message)
        if where is not None and where.slot in self.slots.known:
            batch = dataclasses.replace(batch, image=None)
        elif where is not None:
            self.slots.known.add(where.slot)
        return batch, where


class Slots:
    """The slots of all workers of a loader. ``free`` is shared by all processes: a worker takes, the main process gives back.

    While a worker loads a batch, up to ``prefetch`` others wait, and the user of the loader has up to two.
    """

    def __init__(self, workers: int, prefetch: int) -> None:
        flags = torch.ones(workers, prefetch + 2, dtype=torch.uint8)
        self.free: Tensor = flags.share_memory_()  # type: ignore[no-untyped-call]
        self.memory: dict[tuple[int, int], torch.UntypedStorage] = {}  # (worker, slot); a worker has its own only
        self.known: set[int] = set()  # in a worker: its slots that the main process has mapped
        self.number = next(_numbers)
        self._used: set[tuple[int, int]] = set()
        _open[self.number] = self

    @contextlib.contextmanager
    def loan(self) -> Iterator[Loan | None]:
        """Meanwhile, in a worker, ``shared_bytes`` gives memory of a slot."""
        worker = get_worker_info()
        if worker is None or not CAN_COUNT:
            yield None
            return
        loan = Loan(self, worker.id)
        token = _loan.set(loan)
        try:
            yield loan
        finally:
            _loan.reset(token)

    def image(self, sent: Tensor | None, where: Where) -> Tensor:
        """In the main process: the images there. ``sent``: the tensor itself, if the memory is new."""
        key = where.worker, where.slot
        self._used.add(key)
        if sent is not None:
            self.memory[key] = sent.untyped_storage()
            return sent
        return _tensor(self.memory[key]).as_strided(where.size, where.stride, where.offset)

    def give_back(self) -> None:
        """In the main process: free the slots that no tensor refers to."""
        for key in list(self._used):
            if torch._C._storage_Use_Count(self.memory[key]._cdata) == 1:  # type: ignore[attr-defined]  # ``self.memory``
                self._used.discard(key)
                self.free[key] = 1


def received(batch: Batch, where: Where | None) -> Batch:
    """In the main process: the batch that ``Loan.sent`` made a message of."""
    batch = _changed(batch, _as_tensor)
    return batch if where is None else dataclasses.replace(batch, image=_open[where.slots].image(batch.image, where))


_loan: ContextVar[Loan | None] = ContextVar('loan', default=None)


def shared_bytes(size: int) -> Tensor:
    """In a worker: memory (size,) uint8 that is shared with the main process. torch would copy other memory once more."""
    loan = _loan.get()
    found = None if loan is None else loan.take(size)
    return _tensor(new_memory(size)) if found is None else found


def new_memory(size: int) -> torch.UntypedStorage:
    return torch.UntypedStorage._new_shared(size, device='cpu')  # type: ignore[no-untyped-call, no-any-return]


def _tensor(memory: torch.UntypedStorage) -> Tensor:
    return torch.empty(0, dtype=torch.uint8).set_(memory)  # type: ignore[call-overload, no-any-return]


def _changed(batch: Batch, change: Callable[[Any], Any]) -> Batch:
    """``change`` applied to all fields but the image, and to the values of ``extra``."""
    fields = {field.name: getattr(batch, field.name) for field in dataclasses.fields(batch) if field.init}
    made = {name: change(value) for name, value in fields.items() if name not in ('image', 'extra')}
    return dataclasses.replace(batch, **made, extra={key: change(value) for key, value in batch.extra.items()})


def _as_message(value: Any) -> Any:
    if type(value) is not Tensor or value.nbytes > SMALL or value.dtype == torch.bfloat16 or value.is_sparse:
        return value
    return Message(value.numpy())


def _as_tensor(value: Any) -> Any:
    return torch.from_numpy(value.array) if isinstance(value, Message) else value
