"""Aspect-ratio buckets: batches whose images have one size, of about one area, in the shape that suits them.

A bucket is a size (height, width). Every step has images of one bucket on all ranks. The order is a pure function of seed,
epoch, position and the number of samples of a step, so the only state to save is the position, as in ``plan.py``.

The positions of an epoch are cut at the multiples of a step's samples. Each bucket fills as many whole steps as it can, and
these are shuffled. The rest of all buckets, in the order of their shapes, fills the others: there a step has the bucket of
most of its images, and the few others are cropped more. So each image comes once in every epoch, and none is left out.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from contextvars import ContextVar

import numpy as np

from vq.core.errors import ConfigError
from vq.core.random import derive_seed
from vq.data.decode import BadImage
from vq.data.plan import SizedPlace, check_plan, position_order
from vq.interfaces import Dataset

Size = tuple[int, int]  # height, width

_wanted: ContextVar[Size | None] = ContextVar('wanted', default=None)


@contextlib.contextmanager
def sized(size: Size | None) -> Iterator[None]:
    """Meanwhile, in this thread, transforms that can make images of any size make this one."""
    token = _wanted.set(size)
    try:
        yield
    finally:
        _wanted.reset(token)


def wanted_size() -> Size | None:
    """The size of the bucket that is being loaded; None without buckets."""
    return _wanted.get()


def bucket_sizes(image_size: int, multiple: int, ratio: float) -> list[Size]:
    """Sizes of about ``image_size`` squared pixels, sides multiples of ``multiple``, from the widest to the tallest.

    ``ratio``: the largest of the longer side to the shorter one.
    """
    if image_size < 1 or multiple < 1 or image_size % multiple or ratio < 1:
        raise ConfigError(
            f'there are no buckets of {image_size} pixels with sides of multiples of {multiple} and a ratio up to {ratio:g}',
            'aspect_buckets is a multiple of bucket_multiple, and bucket_ratio is 1 or more.',
        )
    short, found = multiple, set()
    while short <= image_size:
        long = round(image_size**2 / short / multiple) * multiple
        if long <= ratio * short:
            found |= {(short, long), (long, short)}
        short += multiple
    return sorted(found, key=lambda size: (size[0] / size[1], size))


def sizes_of(dataset: Dataset) -> np.ndarray:
    """Heights and widths of all images, (count, 2), from headers alone. A damaged image counts as square, until it is read."""
    sizes = np.ones((len(dataset), 2), np.int64)
    for index in range(len(sizes)):
        with contextlib.suppress(BadImage):  # the loader's policy decides about it
            sizes[index] = dataset.size_of(index)
    return sizes


def buckets_of(sizes: np.ndarray, buckets: Sequence[Size]) -> np.ndarray:
    """(N, 2) heights and widths -> (N,) the bucket of the nearest shape, by the logarithm of height : width."""
    shapes = np.log([height / width for height, width in buckets])
    own = np.log(sizes[:, 0] / sizes[:, 1])
    nearest: np.ndarray = np.abs(own[:, None] - shapes).argmin(1)
    return nearest


def epoch_order(numbers: np.ndarray, step: int, seed: int, epoch: int) -> np.ndarray:
    """The samples of an epoch in order, (count,). ``numbers``: the bucket of each sample; ``step``: samples of a step."""
    count = len(numbers)
    head = min(-epoch * count % step, count)  # samples in the step that the epoch before began
    tail = (count - head) % step
    order = position_order(count, seed, epoch)
    whole, rest = [], []
    for bucket in np.unique(numbers):
        members = order[numbers[order] == bucket]
        used = len(members) // step * step
        whole += list(members[:used].reshape(-1, step))
        rest.append(members[used:])
    left = np.concatenate(rest)
    while len(left) < head + tail:  # the ends of an epoch are no whole steps
        left = np.concatenate([left, whole.pop()])
    whole += list(left[head : len(left) - tail].reshape(-1, step))
    words = np.random.Philox(key=derive_seed('buckets', seed, epoch)).random_raw(max(len(whole), 1))
    shuffled = [whole[place] for place in np.argsort(words[: len(whole)], kind='stable')]
    return np.concatenate([left[:head], *shuffled, left[len(left) - tail :]])


def bucket_plan(
    numbers: np.ndarray, buckets: Sequence[Size], batch_size: int, rank: int, world: int, seed: int, start: int = 0
) -> Iterator[list[SizedPlace]]:
    """The batches of one rank, endless. ``start``: number of positions that all ranks together have already used."""
    count, step = len(numbers), world * batch_size
    check_plan(count, batch_size, rank, world)
    orders: dict[int, np.ndarray] = {}
    for first in range(start, 2**62, step):
        places = []
        for epoch in range(first // count, (first + step - 1) // count + 1):
            if epoch not in orders:
                orders = {known: order for known, order in orders.items() if known == epoch - 1}
                orders[epoch] = epoch_order(numbers, step, seed, epoch)
            begin = epoch * count
            found = orders[epoch][max(first - begin, 0) : first + step - begin]
            places += [(epoch, int(index)) for index in found]
        size = buckets[int(np.bincount(numbers[[index for _, index in places]]).argmax())]
        own = places[rank * batch_size : (rank + 1) * batch_size]
        yield [(epoch, index, size) for epoch, index in own]
