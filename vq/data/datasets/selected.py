"""A part of one dataset, or one dataset several times."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np

from vq.core.errors import ConfigError, listing
from vq.core.reading import read_bytes
from vq.data.datasets.base import Transform
from vq.data.datasets.combined import CombinedDataset
from vq.interfaces import Dataset
from vq.registries import VQDatasetRegistry

LARGEST = 2**30  # bytes of a list of ids


def held_out_count(held_out: float, count: int) -> int:
    """How many of ``count`` samples are held out: ``held_out`` itself, or a fraction if it is below 1, rounded down.

    An error if that is none of them, or all.
    """
    found = int(held_out * count + 1e-9) if held_out < 1 else int(held_out)  # 0.29 * 100 is below 29
    if not 0 < found < count:
        raise ConfigError(
            f'held_out={held_out:g} holds out {found} of {count} samples, so one of the splits is empty',
            f'Set held_out to a number from 1 to {count - 1}, or to a fraction.' if count > 1 else 'Add samples.',
        )
    return found


def place_in_split(index: int, count: int, held: int, training: bool, shuffled: bool) -> int:
    """The place among all ``count`` samples of sample ``index`` of a split, of which ``held`` are for validation.

    Not shuffled: validation i is the last sample - i, and training i is i. Shuffled: validation i is i * chunk with
    chunk = count // held, and training leaves these out.
    """
    if not shuffled:
        return index if training else count - 1 - index
    chunk = count // held
    if not training:
        return index * chunk
    if index >= held * (chunk - 1):  # after the last place that is left out
        return index + held
    return index + index // (chunk - 1) + 1


def check_split(split: str, held_out: float) -> str:
    """'train' or 'validation'; the constructor of a dataset with held-out samples calls it."""
    if split not in ('train', 'validation', 'val'):
        raise ConfigError(f"there is no split '{split}'", "Splits are 'train' and 'validation'.")
    if not held_out > 0:
        raise ConfigError(f'held_out is {held_out}', 'It is a number of samples, or a fraction below 1.')
    return 'validation' if split == 'val' else split


class SelectedDataset(CombinedDataset):
    """Base class: some samples of ``dataset``, in any order. Ids and classes stay."""

    def __init__(self, dataset: Dataset, split: str | None, transform: Transform, name: str | None) -> None:
        super().__init__({'': dataset}, split, transform, name)
        self.dataset = dataset

    def place_in(self, index: int) -> int:
        """The index in ``dataset``."""
        raise NotImplementedError

    def place_of(self, index: int) -> tuple[int, int]:
        if not 0 <= index < len(self):
            raise IndexError(f'there is no sample {index} among {len(self)}')
        return 0, self.place_in(index)

    def id_at(self, index: int, number: int, inner: int) -> str:
        return self.dataset.id_of(inner)


@VQDatasetRegistry.register_()
class SplitDataset(SelectedDataset):
    """'train' or 'validation' of a dataset without splits of its own. ``held_out``: samples for validation, or a fraction.

    The last samples are held out, the last one first; ``shuffled``: every n-th one (``place_in_split``).
    """

    def __init__(
        self,
        dataset: Dataset,
        split: str = 'train',
        held_out: float = 0.1,
        shuffled: bool = False,
        transform: Transform = None,
        name: str | None = None,
    ) -> None:
        super().__init__(dataset, check_split(split, held_out), transform, name)
        self.held_out, self.shuffled = held_out, shuffled

    @staticmethod
    def build_pre_hook(config: Any, registry: Any, item: Any) -> Any:
        return config  # the split is made here, of all samples of the dataset

    @functools.cached_property
    def held(self) -> int:
        return held_out_count(self.held_out, self.counts[0])

    def __len__(self) -> int:
        return self.held if self.split == 'validation' else self.counts[0] - self.held

    def place_in(self, index: int) -> int:
        return place_in_split(index, self.counts[0], self.held, self.split == 'train', self.shuffled)

    def settings(self) -> tuple[Any, ...]:
        return (self.held_out, self.shuffled)


@VQDatasetRegistry.register_()
class SubsetDataset(SelectedDataset):
    """The samples ``start:stop:step`` of a dataset, or those whose ids stand in the file ``ids``, one a line."""

    def __init__(
        self,
        dataset: Dataset,
        start: int = 0,
        stop: int | None = None,
        step: int = 1,
        ids: str | None = None,
        split: str | None = None,
        transform: Transform = None,
        name: str | None = None,
    ) -> None:
        if start < 0 or step < 1 or (stop is not None and stop <= start):
            raise ConfigError(
                f'start, stop and step are {start}, {stop} and {step}', 'start is at least 0, stop above it, step at least 1.'
            )
        if ids is not None and (start, stop, step) != (0, None, 1):
            raise ConfigError('a subset has both ids and start, stop or step', 'Give one of them.')
        super().__init__(dataset, split, transform, name)
        self.start, self.stop, self.step, self.ids = start, stop, step, ids

    @functools.cached_property
    def places(self) -> np.ndarray | range:
        """The indices in ``dataset``."""
        if self.ids is not None:
            return self._by_id(Path(self.ids).expanduser())
        found = range(self.counts[0])[self.start : self.stop : self.step]
        if not found:
            raise ConfigError(
                f'the subset begins at sample {self.start}, and {self.dataset.name} has {self.counts[0]}', 'Lower start.'
            )
        return found

    def _by_id(self, file: Path) -> np.ndarray:
        try:
            wanted = read_bytes(file, LARGEST).decode().split('\n')
        except (OSError, ValueError) as error:
            raise ConfigError(
                f'the list of ids {file} cannot be read: {error}', 'It is a text file, one id a line.'
            ) from error
        order = {name: place for place, name in enumerate(name.rstrip('\r') for name in wanted) if name.strip()}
        found = np.full(len(wanted), -1, dtype=np.int64)
        for index in range(self.counts[0]):
            if (place := order.get(self.dataset.id_of(index))) is not None:
                found[place] = index
        missing = [name for name, place in order.items() if found[place] < 0]
        if missing or not order:
            raise ConfigError(
                f'{len(missing)} of {len(order)} ids in {file} are not in {self.dataset.name} ({self.dataset.split})'
                + (f': {listing(missing, 4)}' if missing else ''),
                f'Ids look like this: {self.dataset.id_of(0)}',
            )
        return found[found >= 0]

    def __len__(self) -> int:
        return len(self.places)

    def place_in(self, index: int) -> int:
        return int(self.places[index])

    def settings(self) -> tuple[Any, ...]:
        of_ids = '' if self.ids is None else [int(place) for place in self.places]
        return (self.start, self.stop, self.step, of_ids)


@VQDatasetRegistry.register_()
class RepeatDataset(SelectedDataset):
    """A dataset ``times`` times in every epoch. Ids are ``ID#0``, ``ID#1``, and so on."""

    def __init__(
        self, dataset: Dataset, times: int, split: str | None = None, transform: Transform = None, name: str | None = None
    ) -> None:
        if times < 1:
            raise ConfigError(f'times is {times}', 'It must be at least 1.')
        super().__init__(dataset, split, transform, name)
        self.times = times

    def __len__(self) -> int:
        return self.times * self.counts[0]

    def place_in(self, index: int) -> int:
        return index % self.counts[0]

    def id_at(self, index: int, number: int, inner: int) -> str:
        return f'{self.dataset.id_of(inner)}#{index // self.counts[0]}'

    def settings(self) -> tuple[Any, ...]:
        return (self.times,)
