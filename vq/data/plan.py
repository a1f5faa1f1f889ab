"""The order of samples: pure functions of seed, epoch and position. The only state to save is the position.

Training reads an endless sequence of positions 0, 1, 2, ...: the permutations of the epochs, one after the other. Position p
belongs to epoch p // count. A step takes the next ``world * batch_size`` positions and gives each rank its slice. So a run
can stop after any number of samples and resume with another batch size or number of ranks: none is missed or repeated.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from vq.core.random import derive_seed

Place = tuple[int, int]  # (epoch, index)
SizedPlace = tuple[int, int, tuple[int, int]]  # (epoch, index, (height, width)): see buckets.py


def position_order(count: int, seed: int, epoch: int) -> np.ndarray:
    """The permutation (count,) int64 of one epoch.

    It is the sorting order of raw words of a counter-based generator. NumPy guarantees that these words never change; the
    result of ``Generator.permutation`` can change between versions.
    """
    words = np.random.Philox(key=derive_seed('order', seed, epoch)).random_raw(count)
    return np.argsort(words, kind='stable')


def training_plan(count: int, batch_size: int, rank: int, world: int, seed: int, start: int = 0) -> Iterator[list[Place]]:
    """The batches of one rank, endless. ``start``: number of positions that all ranks together have already used."""
    check_plan(count, batch_size, rank, world)
    orders: dict[int, np.ndarray] = {}
    first = start + rank * batch_size
    while True:
        batch = []
        for position in range(first, first + batch_size):
            epoch, offset = divmod(position, count)
            if epoch not in orders:
                orders = {known: order for known, order in orders.items() if known == epoch - 1}
                orders[epoch] = position_order(count, seed, epoch)
            batch.append((epoch, int(orders[epoch][offset])))
        yield batch
        first += world * batch_size


def evaluation_plan(count: int, batch_size: int, rank: int, world: int) -> Iterator[list[Place]]:
    """The batches of one rank. All ranks together get every index exactly once, without padding.

    Batch k holds consecutive indices and goes to rank k % world.
    """
    check_plan(count, batch_size, rank, world)
    for first in range(rank * batch_size, count, world * batch_size):
        yield [(0, index) for index in range(first, min(first + batch_size, count))]


def shares(counts: np.ndarray, total: int) -> np.ndarray:
    """Whole numbers in proportion to ``counts`` that add up to ``total`` (largest remainders, ties to the first)."""
    exact = counts * total / counts.sum()
    given: np.ndarray = np.floor(exact).astype(np.int64)
    given[np.argsort(given - exact, kind='stable')[: total - given.sum()]] += 1
    return given


def check_plan(count: int, batch_size: int, rank: int, world: int) -> None:
    """Refuse numbers that make no plan."""
    if count < 1 or batch_size < 1 or not 0 <= rank < world:
        raise ValueError(f'no plan for {count} samples in batches of {batch_size} on rank {rank} of {world}')
