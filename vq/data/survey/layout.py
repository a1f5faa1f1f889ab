"""Where the splits and classes of a folder are, and whether another folder is the right root."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from vq.core.errors import listing
from vq.data.files import OF_SPLITS, folders_in
from vq.data.held_out import is_held_out

# names by which other toolkits and people call splits, in lower case
LIKE_SPLITS = {
    **dict.fromkeys(('train', 'training', 'trainset', 'train_set', 'train_images'), 'train'),
    **dict.fromkeys(('val', 'valid', 'validation', 'dev', 'eval', 'validate', 'val_set', 'valset'), 'validation'),
    **dict.fromkeys(('test', 'testing', 'tests', 'testset', 'test_set'), 'test'),
}
LEVELS = 4  # folders below the root in which split folders are looked for


@dataclasses.dataclass
class Better:
    """Another root than the one that was given. ``certain``: the given one would lose splits or classes."""

    root: Path
    why: str
    certain: bool


def better_root(root: Path, images: Sequence[str]) -> Better | None:
    """The folder that is meant, if ``root`` is a level too high or too low. ``images``: paths below ``root``, with slashes."""
    tops = collections.Counter(path.split('/')[0] if '/' in path else '' for path in images)
    splits = {OF_SPLITS[name] for name in folders_in(root) if name in OF_SPLITS}
    if splits:
        if 'validation' not in splits and tops['train']:
            return Better(root / 'train', f'{root} has train/ and no validation/: below train/ a part can be held out', True)
        return None
    above = root.resolve().parent
    if root.resolve().name in OF_SPLITS and {OF_SPLITS[name] for name in folders_in(above) if name in OF_SPLITS} >= {
        'train',
        'validation',
    }:
        return Better(
            root.parent if root.name not in ('', '..') else above, f'{root} is one split of the folder above it', False
        )
    if (inside := _root_of_splits(images)) is not None:
        return Better(root / inside, f'{root / inside} holds train/', True)
    if not (deeper := _only_folder(images)):
        return None
    below = {path[len(deeper) + 1 :].split('/')[0] for path in images if path.count('/') > deeper.count('/') + 1}
    return Better(root / deeper, f'all images of {root} lie below {deeper}/', len(below) > 1)


def _root_of_splits(images: Sequence[str]) -> str | None:
    """The one folder below which train/ lies for at least half of the images."""
    found: collections.Counter[str] = collections.Counter()
    for path in images:
        parts = path.split('/')[:-1]
        place = next((level for level, part in enumerate(parts[: LEVELS + 1]) if part in OF_SPLITS), 0)
        if place:
            found['/'.join(parts[:place])] += 1
    trained = [folder for folder in found if any(path.startswith(f'{folder}/train/') for path in images)]
    return trained[0] if len(trained) == 1 and 2 * found[trained[0]] >= len(images) else None


def _only_folder(images: Sequence[str]) -> str:
    """The deepest folder that holds all images directly, or in several folders; '' if it is the root."""
    common: list[str] | None = None
    for path in images:
        parts = path.split('/')[:-1]
        if common is None:
            common = parts
        while common != parts[: len(common)]:
            common = common[:-1]
        if not common:
            break
    return '/'.join(common or ())


@dataclasses.dataclass
class Layout:
    """The split and class of every image."""

    kind: Literal['split folders', 'class folders', 'flat', 'mixed']
    splits: list[str]  # of each image
    labels: np.ndarray | None  # of each image, numbers of classes; None without classes
    categories: tuple[str, ...]
    warnings: list[str]


def lay_out(root: Path, images: Sequence[str], share: float) -> Layout:
    """As ``FolderDataset`` reads the folder; ``share`` is its ``held_out``."""
    divided = any(name in OF_SPLITS for name in folders_in(root))
    if divided:
        kept = [path.split('/', 1)[0] for path in images]
        splits = [OF_SPLITS.get(name, '') for name in kept]  # '': a folder beside the splits
        within = [path.split('/', 1)[1] if split else '' for path, split in zip(images, splits, strict=True)]
    else:
        splits = ['validation' if is_held_out(path, share) else 'train' for path in images]
        within = list(images)
    warnings = _warnings(root, images, splits, divided)
    first = [path.split('/')[0] if '/' in path else '' for path in within]
    with_class = [bool(name) for name, split in zip(first, splits, strict=True) if split]
    if not any(with_class):
        return Layout('split folders' if divided else 'flat', splits, None, (), warnings)
    if not all(with_class):
        loose = images[next(place for place, name in enumerate(first) if not name and splits[place])]
        warnings.append(f'{loose} is in no class folder, but other images are: classes=False ignores the folders')
        return Layout('mixed', splits, None, (), warnings)
    names = set(first) - {''}
    for folder in (folder for folder in OF_SPLITS if divided):
        names |= set(folders_in(root / folder))
    categories = tuple(sorted(names))
    numbers = {name: number for number, name in enumerate(categories)}
    labels = np.array([numbers.get(name, -1) for name in first], dtype=np.int32)
    if not divided and (note := _two_levels(images)):
        warnings.append(note)
    return Layout('split folders' if divided else 'class folders', splits, labels, categories, warnings)


def _warnings(root: Path, images: Sequence[str], splits: Sequence[str], divided: bool) -> list[str]:
    found = []
    if divided and (outside := [path for path, split in zip(images, splits, strict=True) if not split]):
        found.append(f'{len(outside)} images are beside the split folders and belong to no split: {listing(outside, 3)}')
    tops = {path.split('/')[0] for path in images if '/' in path}
    alike = {name: LIKE_SPLITS[name.lower()] for name in sorted(tops) if name.lower() in LIKE_SPLITS and name not in OF_SPLITS}
    if alike:
        names = ', '.join(f'{name} to {split}' for name, split in alike.items())
        found.append(f'folders that are named like splits are read as classes; rename {names}')
    below = sorted({path.split('/')[1] for path in images if path.count('/') > 1} & set(OF_SPLITS))
    if below and not divided:
        found.append(
            f'{listing(below)} lie inside of other folders: split folders come first, then classes: train/CLASS/IMAGE'
        )
    return found


def _two_levels(images: Sequence[str]) -> str:
    """A warning if the first folders look like sources, each with the same classes below it."""
    below: dict[str, set[str]] = {}
    for path in images:
        parts = path.split('/')
        if len(parts) < 3:
            return ''
        below.setdefault(parts[0], set()).add(parts[1])
    shared = set.intersection(*below.values()) if len(below) > 1 else set()
    if len(shared) < 2:
        return ''
    return (
        f'the classes are the first folders ({listing(below, 4)}), and each of these holds the same folders '
        f'({listing(shared, 4)}): if those are the classes, they lie one level too deep'
    )
