"""Any dataset, looked at completely: each image is read once, as it is stored and as validation shows it."""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vq.core.errors import UserError
from vq.core.reading import read_bytes
from vq.data.decode import LARGEST, PIXEL_LIMIT, BadImage
from vq.data.spread import spread
from vq.data.survey.reading import Facts, facts_of, kinds_of
from vq.data.survey.stats import Counted, Look, Stats, add, count, nothing
from vq.data.survey.surveyed import Surveyed, gather
from vq.interfaces import Dataset


@dataclasses.dataclass
class DatasetSurvey(Surveyed):
    """Arrays have one entry for each sample, those of one split after those of another."""

    name: str
    names: list[str]
    splits: list[str]
    labels: np.ndarray | None
    categories: Sequence[str]
    sizes: np.ndarray
    bad: dict[str, str]
    kinds: collections.Counter[str]
    copies: list[list[int]]
    lookalikes: list[list[int]]
    stats: dict[str, Stats]  # by split

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        stats = {split: found.plain() for split, found in self.stats.items()}
        return {'dataset': self.name, **self.plain_images(), 'pixels': stats}


def look_at(look: Look, index: int) -> tuple[Facts, Counted]:
    """One sample. Of an image in a file of its own the bytes are compared, of others the pixels."""
    dataset = look.dataset
    try:
        sample = dataset.original(index)
        path = sample.get('path')
        if path is not None and Path(path).is_file():
            data = read_bytes(path, LARGEST + 16 * PIXEL_LIMIT)
            with Image.open(io.BytesIO(data)) as image:
                kinds = kinds_of(image, data)
        else:
            kinds, data = (), sample['image'].tobytes()
    except BadImage as error:
        return Facts(error.reason), Counted(error.reason, None, None)
    except (OSError, ValueError) as error:  # the file has changed since it was decoded
        return Facts(f'cannot be read: {error}'), Counted(str(error), None, None)
    counted = count(look, index, sample)
    facts = Facts(counted.reason) if counted.reason else facts_of(sample['image'], hashlib.sha256(data).digest()[:16], kinds)
    return facts, counted


def survey_datasets(
    looks: Mapping[str, Look], workers: int, progress: Callable[[str, int], Callable[[int], object]]
) -> DatasetSurvey:
    """Look at each split. ``progress(split, count)`` gives the function that is told of finished samples."""
    first = next(iter(looks.values())).dataset
    names, splits, labels, stats = _names(looks), [], [], {}
    for split, look in looks.items():
        splits += [split] * len(look.dataset)
        stats[split] = nothing()

    def facts() -> Iterator[Facts]:
        for split, look in looks.items():
            advance = progress(split, len(look.dataset))
            for index, (found, counted) in enumerate(spread(look_at, look, range(len(look.dataset)), workers, advance)):
                add(stats[split], look.dataset.id_of(index), counted)
                labels.append(-1 if counted.category is None else counted.category)
                yield found

    gathered = gather(len(names), facts())
    bad = {names[index]: reason for index, reason in gathered.bad.items()}
    if len(bad) == len(names):
        said = '; '.join(f'{name} {reason}' for name, reason in list(bad.items())[:3])
        raise UserError(f'none of the {len(names)} images of {first.name} can be read: {said}', 'Look at these files.')
    numbers = np.array(labels, np.int64)
    classed = bool((numbers >= 0).any())
    return DatasetSurvey(
        name=first.name,
        names=names,
        splits=splits,
        labels=numbers if classed else None,
        categories=_categories(first, int(numbers.max()) + 1) if classed else (),
        stats=stats,
        **{**gathered._asdict(), 'bad': bad},
    )


def _names(looks: Mapping[str, Look]) -> list[str]:
    """The ids of all samples. If a sample of two splits has one id, the split stands before it."""
    ids = [[look.dataset.id_of(index) for index in range(len(look.dataset))] for look in looks.values()]
    found = [name for own in ids for name in own]
    if len(set(found)) == len(found):
        return found
    return [f'{split}: {name}' for split, own in zip(looks, ids, strict=True) for name in own]


def _categories(dataset: Dataset, count: int) -> list[str]:
    """A name for each class number, all of them different."""
    known = list(dataset.categories or ())[: max(count, len(dataset.categories or ()))]
    found = [str(name) for name in known] + [str(number) for number in range(len(known), count)]
    times = collections.Counter(found)
    return [name if times[name] == 1 else f'{number} {name}' for number, name in enumerate(found)]
