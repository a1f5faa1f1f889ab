"""Several datasets as one: one after the other, or mixed by weights."""

from __future__ import annotations

import functools
import hashlib
import math
import random
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any, Literal

import numpy as np

from vq.core.errors import ConfigError, UserError, listing
from vq.core.parameters import parameters_of
from vq.data.datasets.base import ImageDataset, Transform
from vq.data.plan import shares
from vq.interfaces import Dataset, Field, Sample
from vq.registries import VQDatasetRegistry

Classes = Literal['same', 'joined', 'none']


def with_split(config: Any) -> Any:
    """The config of a combined dataset, whose split goes to those of its parts that take one and have none of their own.

    So ``--train`` of a command, or ``split`` on the command line, changes all parts.
    """
    if config.get('split') is None:
        return config
    found = dict(config)
    if _takes_split(found.get('dataset')):
        found['dataset'] = {**found['dataset'], 'split': found['split']}
    if isinstance(parts := found.get('datasets'), Mapping):
        found['datasets'] = {
            key: {**part, 'split': found['split']} if _takes_split(part) else part for key, part in parts.items()
        }
    return found


def _takes_split(part: Any) -> bool:
    if not isinstance(part, Mapping) or 'type' not in part or 'split' in part:
        return False
    try:
        return 'split' in parameters_of(VQDatasetRegistry.parse(part['type'])[1])
    except UserError:
        return False  # reported where the part is built


def joined_fields(parts: Mapping[str, Dataset]) -> dict[str, Field]:
    """All fields that parts declare. One name with two declarations is an error: a batch can hold it in one way only."""
    found: dict[str, tuple[str, Field]] = {}
    for key, part in parts.items():
        for name, field in part.fields.items():
            if found.setdefault(name, (key, field))[1] != field:
                raise ConfigError(
                    f"the datasets '{found[name][0]}' and '{key}' declare the field {name} differently: "
                    f'{found[name][1]} and {field}',
                    'Combine datasets whose samples hold the same, or leave one out.',
                )
    return {name: field for name, (_, field) in found.items()}


def _joined_collate(parts: Mapping[str, Dataset]) -> Any:
    """The ``collate`` method of the parts, if they have one of their own; an error if they have different ones."""
    own = {key: getattr(type(part), 'collate', None) or getattr(part, 'collate', None) for key, part in parts.items()}
    first, *others = own
    for key in others:
        if own[key] != own[first]:
            raise ConfigError(f"the datasets '{first}' and '{key}' make batches in different ways", 'Leave one of them out.')
    return getattr(parts[first], 'collate', None)


class CombinedDataset(ImageDataset):
    """Base class: samples come from ``parts``, each with its own transform, then ``transform``.

    ``classes``: 'same': all parts have the same class names, or none has any. 'joined': those of all parts one after the
    other, as PART/CLASS. 'none': samples have no class.
    """

    def __init__(
        self,
        parts: Mapping[str, Dataset],
        split: str | None,
        transform: Transform,
        name: str | None,
        classes: Classes = 'same',
    ) -> None:
        if not parts:
            raise ConfigError(f'{type(self).__name__} has no datasets', 'Give at least one.')
        splits = {part.split for part in parts.values()}
        super().__init__(
            name or '+'.join(part.name for part in parts.values()),
            split or (splits.pop() if len(splits) == 1 else 'all'),
            transform,
        )
        self.parts, self.classes = dict(parts), classes
        self._keys, self._parts = [*parts], [*parts.values()]
        self.fields = joined_fields(parts)
        if (collate := _joined_collate(parts)) is not None:
            self.collate = collate

    @staticmethod
    def build_pre_hook(config: Any, registry: Any, item: Any) -> Any:
        return with_split(config)

    def place_of(self, index: int) -> tuple[int, int]:
        """The number of the part and the index in it."""
        raise NotImplementedError

    def drawn(self, index: int, stream: random.Random) -> tuple[int, int]:
        """The place that ``load`` reads."""
        return self.place_of(index)

    def id_at(self, index: int, number: int, inner: int) -> str:
        """The id of sample ``inner`` of a part, which stands at ``index``."""
        return f'{self._keys[number]}/{self._parts[number].id_of(inner)}'

    @functools.cached_property
    def counts(self) -> tuple[int, ...]:
        """The number of samples of each part. Asked for before the first sample, so mistakes in classes are told here."""
        counts = tuple(len(part) for part in self._parts)
        _ = self._offsets
        return counts

    @functools.cached_property
    def categories(self) -> Sequence[str] | None:  # type: ignore[override]
        if self.classes == 'none':
            return None  # parts are not asked: that can read their files
        names = {key: part.categories and tuple(part.categories) for key, part in self.parts.items()}
        first, *others = names
        if self.classes == 'same':
            for key in others:
                if names[key] != names[first]:
                    raise ConfigError(
                        f"the datasets '{first}' and '{key}' have different classes: "
                        f'{_in_words(names[first])}; {_in_words(names[key])}',
                        "Set classes to 'joined', for the classes of all of them one after the other, or to 'none'.",
                    )
            return names[first]
        without = [key for key, found in names.items() if not found]
        if without:
            raise ConfigError(
                f"classes='joined', and there are no class names in {listing(without)}", "Set classes to 'same' or to 'none'."
            )
        return tuple(f'{key}/{name}' for key, found in names.items() for name in found or ())

    @functools.cached_property
    def _offsets(self) -> list[int]:
        """The number of the first class of each part."""
        _ = self.categories
        sizes = [len(part.categories or ()) if self.classes == 'joined' else 0 for part in self._parts]
        return [0, *accumulate(sizes)]

    @property
    def label_names(self) -> Sequence[str] | None:  # type: ignore[override]
        """Those of the parts, if they all have the same."""
        first, *others = (part.label_names for part in self._parts)
        return first if all(first is not None and list(first) == list(other or ()) for other in others) else None

    def _category(self, number: int, category: int | None) -> int | None:
        return None if category is None or self.classes == 'none' else category + self._offsets[number]

    def id_of(self, index: int) -> str:
        return self.id_at(index, *self.place_of(index))

    def load(self, index: int, stream: random.Random) -> Sample:
        number, inner = self.drawn(index, stream)
        return self.apply(self._as_ours(self._parts[number].load(inner, stream), index, number, inner), stream)

    def original(self, index: int) -> Sample:
        number, inner = self.place_of(index)
        return self._as_ours(self._parts[number].original(inner), index, number, inner)

    def _as_ours(self, sample: Sample, index: int, number: int, inner: int) -> Sample:
        """The sample of a part, with the id and the class that it has here."""
        changes: dict[str, Any] = {'id': self.id_at(index, number, inner)}
        if 'category' in sample:
            changes['category'] = self._category(number, sample['category'])
        sample = sample.but(**changes)
        sample.fields = self.fields
        return sample

    def _image_part(self, index: int) -> tuple[ImageDataset, int, int]:
        number, inner = self.place_of(index)
        part = self._parts[number]
        if not isinstance(part, ImageDataset):
            raise UserError(f'samples of {part.name} are no images', 'Take a dataset of images.')
        return part, number, inner

    def read(self, index: int) -> np.ndarray:
        part, _, inner = self._image_part(index)
        return part.read(inner)

    def category_of(self, index: int) -> int | None:
        part, number, inner = self._image_part(index)
        return self._category(number, part.category_of(inner))

    def path_of(self, index: int) -> str | None:
        part, _, inner = self._image_part(index)
        return part.path_of(inner)

    def annotations_of(self, index: int) -> Mapping[str, Any]:
        part, _, inner = self._image_part(index)
        return part.annotations_of(inner)

    def encoded(self, index: int) -> bytes | None:
        part, _, inner = self._image_part(index)
        return part.encoded(inner)

    def settings(self) -> tuple[Any, ...]:
        """What decides which samples there are, besides the parts."""
        return ()

    @functools.cached_property
    def _digest(self) -> str:
        _ = self.counts  # a dataset that looks for its parts has found them now
        of_parts = [(key, part.fingerprint()) for key, part in self.parts.items()]
        about = repr((type(self).__name__, self.name, self.split, self.classes, self.settings(), of_parts))
        return hashlib.blake2b(about.encode(), digest_size=8).hexdigest()


def _in_words(names: Sequence[str] | None) -> str:
    return 'none' if not names else f'{len(names)} ({", ".join(list(names)[:3])}{", ..." if len(names) > 3 else ""})'


@VQDatasetRegistry.register_()
class ConcatDataset(CombinedDataset):
    """All samples of ``datasets``, one dataset after the other. Ids are ``KEY/ID``, by the key of the dataset.

    ``split`` goes to parts without one of their own. See ``CombinedDataset`` for ``classes``.
    """

    def __init__(
        self,
        datasets: dict[str, Dataset],
        split: str | None = None,
        transform: Transform = None,
        name: str | None = None,
        classes: Classes = 'same',
    ) -> None:
        super().__init__(datasets, split, transform, name, classes)

    @functools.cached_property
    def _ends(self) -> list[int]:
        return [*accumulate(self.counts)]

    def __len__(self) -> int:
        return self._ends[-1]

    def place_of(self, index: int) -> tuple[int, int]:
        if not 0 <= index < len(self):
            raise IndexError(f'there is no sample {index} among {len(self)}')
        number = bisect_right(self._ends, index)
        return number, index - (self._ends[number - 1] if number else 0)


@VQDatasetRegistry.register_()
class MixedDataset(CombinedDataset):
    """Samples of ``datasets`` in the proportions of ``weights``, exactly in every epoch.

    An epoch has ``count`` places; None: as many as all datasets have samples. Each dataset has its share of them. If that is
    less than its samples, a place stands for several of them, and each epoch draws one: no sample comes twice in an epoch,
    and which ones come depends on seed, epoch and place only. If it is more, samples are repeated, with the ids ``KEY/ID#0``,
    ``KEY/ID#1``, and so on.
    """

    def __init__(
        self,
        datasets: dict[str, Dataset],
        weights: dict[str, float],
        count: int | None = None,
        split: str | None = None,
        transform: Transform = None,
        name: str | None = None,
        classes: Classes = 'same',
    ) -> None:
        if weights.keys() != datasets.keys():
            raise ConfigError(
                f'there are weights of {listing(weights)}, and the datasets are {listing(datasets)}',
                'Give one weight for each dataset.',
            )
        if wrong := [f'{key}: {weight}' for key, weight in weights.items() if not 0 < weight < math.inf]:
            raise ConfigError(f'weights must be above 0: {listing(wrong)}', 'Leave a dataset out by setting it to None.')
        if count is not None and count < 1:
            raise ConfigError(f'count is {count}', 'It is the number of samples in an epoch, or None.')
        super().__init__(datasets, split, transform, name, classes)
        self.weights, self.count = weights, count

    @functools.cached_property
    def quotas(self) -> list[int]:
        """The number of places of each part."""
        total = self.count or sum(self.counts)
        quotas = shares(np.array([float(self.weights[key]) for key in self.parts]), total).tolist()
        if without := [key for key, quota in zip(self.parts, quotas, strict=True) if not quota]:
            raise ConfigError(
                f'of {total} places in an epoch none is left for {listing(without)}', 'Raise count, or its weight.'
            )
        return [int(quota) for quota in quotas]

    @functools.cached_property
    def _ends(self) -> list[int]:
        return [*accumulate(self.quotas)]

    def __len__(self) -> int:
        return self._ends[-1]

    def _slot(self, index: int) -> tuple[int, int]:
        """The part of a place, and the number of the place among those of the part."""
        if not 0 <= index < len(self):
            raise IndexError(f'there is no sample {index} among {len(self)}')
        number = bisect_right(self._ends, index)
        return number, index - (self._ends[number - 1] if number else 0)

    def place_of(self, index: int) -> tuple[int, int]:
        number, slot = self._slot(index)
        return number, slot % self.counts[number]

    def drawn(self, index: int, stream: random.Random) -> tuple[int, int]:
        number, slot = self._slot(index)
        quota, count = self.quotas[number], self.counts[number]
        if quota >= count:
            return number, slot % count
        several = (count - 1 - slot) // quota + 1  # the samples slot, slot + quota, slot + 2 quota, ...
        return number, slot + quota * int(stream.random() * several)

    def id_at(self, index: int, number: int, inner: int) -> str:
        name = super().id_at(index, number, inner)
        repeated = self.quotas[number] > self.counts[number]
        return f'{name}#{self._slot(index)[1] // self.counts[number]}' if repeated else name

    def settings(self) -> tuple[Any, ...]:
        return (sorted(self.weights.items()), self.count)
