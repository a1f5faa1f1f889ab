"""Small checkpoints to save and compare."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from vq.core import collectives
from vq.io import checkpoints
from vq.io.checkpoints import Checkpoint
from vq.io.spec import Spec


def sample(step: int, fill: float, ema: bool = True, rank: int = 0) -> Checkpoint:
    """A checkpoint in which every value depends on ``fill``."""
    model = {'encoder.weight': torch.full((3, 5), fill), 'codes': torch.full((7,), fill, dtype=torch.bfloat16)}
    return Checkpoint(
        step=step,
        model=model,
        ema={key: value + 1 for key, value in model.items()} if ema else None,
        training={'optimizers': {'g': {'state': {0: {'step': torch.tensor(fill), 'exp_avg': torch.full((15,), fill)}}}}},
        per_rank={'random': {'torch': torch.arange(9) + rank, 'python': [3, [1, 2], None]}},
        config_text=f'{{"fill": {fill}}}\n',
        spec=Spec('tokenizer', (32, 48), {}, {'fill': fill}).as_json(),
        samples_seen=step * 4,
        seed=7,
        extra={'run_id': 'x1'},
    )


def equal(first: Any, second: Any) -> bool:
    """Bit equality of plain containers."""
    if isinstance(first, torch.Tensor):
        return isinstance(second, torch.Tensor) and first.dtype == second.dtype and torch.equal(first, second)
    if isinstance(first, dict):
        return (
            isinstance(second, dict) and list(first) == list(second) and all(equal(first[key], second[key]) for key in first)
        )
    if isinstance(first, list | tuple):
        return type(first) is type(second) and len(first) == len(second) and all(map(equal, first, second))
    return type(first) is type(second) and first == second


def same(found: Checkpoint, expected: Checkpoint) -> bool:
    """Whether all values of a checkpoint are equal; the order of weights may differ."""
    names = ('step', 'training', 'per_rank', 'config_text', 'spec', 'samples_seen', 'seed', 'frozen', 'extra')
    weights = all(
        equal(dict(sorted((getattr(found, name) or {}).items())), dict(sorted((getattr(expected, name) or {}).items())))
        for name in ('model', 'ema')
    )
    return weights and all(equal(getattr(found, name), getattr(expected, name)) for name in names)


def is_same(path: Path, expected: Checkpoint) -> bool:
    return same(checkpoints.load(path), expected)


def hidden(folder: Path) -> list[str]:
    return [entry.name for entry in folder.iterdir() if entry.name.startswith('.')]


class ThreadRanks:
    """Collectives whose ranks are threads of this process: enough for work on files."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._own = threading.local()
        self._barrier = threading.Barrier(size, timeout=20)
        self._slots: list[Any] = [None] * size

    @property
    def rank(self) -> int:
        return getattr(self._own, 'rank', 0)

    def barrier(self) -> None:
        self._barrier.wait()

    def all_gather_object(self, value: Any) -> list[Any]:
        self._slots[self.rank] = value
        self._barrier.wait()
        values = list(self._slots)
        self._barrier.wait()
        return values

    def run(self, action: Callable[[int], Any]) -> list[Any]:
        """The result or error of ``action(rank)`` on every rank."""
        results: list[Any] = [None] * self.size

        def work(rank: int) -> None:
            self._own.rank = rank
            try:
                results[rank] = action(rank)
            except Exception as error:
                results[rank] = error

        collectives.install(self)  # type: ignore[arg-type]
        threads = [threading.Thread(target=work, args=(rank,)) for rank in range(self.size)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        collectives.install(None)
        return results
