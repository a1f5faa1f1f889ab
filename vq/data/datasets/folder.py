"""A folder of images, at any depth."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from vq.core.errors import ConfigError, listing
from vq.data.datasets.base import FileDataset, FileIndex, Transform
from vq.data.decode import PIXEL_LIMIT, Backend
from vq.data.files import OF_SPLITS, SPLITS, find_images, folders_in, what_is_in
from vq.data.held_out import share_for, which_are_held_out
from vq.data.kept import Kept
from vq.data.names import Names
from vq.data.pixels import Resampler
from vq.data.survey.layout import better_root
from vq.registries import VQDatasetRegistry

logger = logging.getLogger('vq')


def has_split_folders(root: Path) -> bool:
    return any((root / folder).is_dir() for folder in OF_SPLITS)


def split_folder(root: Path, split: str) -> str:
    """The folder of a split, relative to ``root``. A root without split folders is all 'train': ''."""
    there = {name: [folder for folder in folders if (root / folder).is_dir()] for name, folders in SPLITS.items()}
    if len(there[split]) > 1:
        raise ConfigError(f'{root} has two folders for the split {split}: {" and ".join(there[split])}', 'Keep one of them.')
    if there[split]:
        return there[split][0]
    if any(there.values()) and root.is_dir():
        raise ConfigError(
            f"{root} has no folder for the split '{split}'; it holds: {what_is_in(root)}",
            f'Make the folder {" or ".join(SPLITS[split])}'
            + (f', or set data_root to {root / "train"}, of which a part can be held out.' if there['train'] else '.'),
        )
    if split != 'train' and root.is_dir():
        raise ConfigError(
            f"{root} has no split folders, so all of it is the split 'train' and '{split}' is empty",
            'Set held_out to a fraction to hold out for validation, sort the images into train/, validation/ and test/, or '
            'give a split a root of its own.',
        )
    return ''


def label_by_folder(root: Path, below: str, paths: list[str], siblings: list[str]) -> FileIndex:
    """Label images by the first folder below the split.

    ``siblings``: folders of all splits. Their classes are numbered too, so that a class has the same number in all splits.
    """
    depth = 1 if below else 0
    first = [path.split('/')[depth] if path.count('/') > depth else '' for path in paths]
    if not any(first):
        return FileIndex(Names(paths))
    if not all(first):
        raise ConfigError(
            f'{root / paths[first.index("")]} is not in a class folder, but other images are',
            'Move it into a class folder, or set classes to False.',
        )
    categories = sorted(set(first).union(*(folders_in(root / sibling) for sibling in siblings)))
    numbers = {name: number for number, name in enumerate(categories)}
    labels = np.array([numbers[name] for name in first], dtype=np.int32)
    return FileIndex(Names(paths), labels, tuple(categories))


def check_level(root: Path, paths: list[str], classes: bool) -> None:
    """Refuse a root a level too high, whose splits would be mixed or whose classes would be one; warn of other doubts."""
    better = better_root(root, paths)
    if better is None:
        return
    if better.certain and (classes or has_split_folders(better.root)):
        raise ConfigError(f'{better.why}, so {root} is not the root of the images', f'Set data_root to {better.root}.')
    logger.warning('%s; if you mean that folder, set data_root to %s', better.why, better.root)


def keep_split(root: Path, index: FileIndex, split: str, share: float) -> FileIndex:
    """The part of a folder without split folders that belongs to ``split``, 'train' or 'validation'; said in a log line."""
    held = which_are_held_out(index.paths, share)
    kept = held if split == 'validation' else ~held
    if not kept.any():
        _refuse_empty(root, list(index.paths), split, share)
    labels = None if index.labels is None else index.labels[kept]
    what = 'held out for validation' if split == 'validation' else 'to train on, the others are held out'
    logger.info(
        '%s has no split folders: %d of its %d images are %s, by a hash of their paths (held_out=%g)%s',
        *(root, kept.sum(), len(kept), what, share, _classes_without(index.categories, labels)),
    )
    return FileIndex(Names(path for path, keep in zip(index.paths, kept, strict=True) if keep), labels, index.categories)


def _refuse_empty(root: Path, paths: list[str], split: str, share: float) -> NoReturn:
    if split == 'train':
        raise ConfigError(f'held_out={share:g} holds out all {len(paths)} images of {root}', 'Use a smaller held_out.')
    enough = share_for(paths)
    advice = '' if enough is None else f'Set held_out to {enough:g} or more, '
    raise ConfigError(
        f'held_out={share:g} holds out none of the {len(paths)} images of {root}, so the validation split is empty',
        f'{advice or "Add images, "}or sort the images into train/ and validation/.',
    )


def _classes_without(categories: Sequence[str] | None, labels: np.ndarray | None) -> str:
    if categories is None or labels is None:
        return ''
    counts = np.bincount(labels, minlength=len(categories))
    without = [name for name, count in zip(categories, counts, strict=True) if not count]
    return f'; none of the class {listing(without, 5)}' if without else ''


@VQDatasetRegistry.register_()
class FolderDataset(FileDataset):
    """Images below ``root/SPLIT``, or below ``root`` if it has no split folders.

    Folders of splits are ``train``, ``validation`` (or ``val``) and ``test``. Without any, the fraction ``held_out`` of the
    images is 'validation', chosen by a hash of their paths, and the others are 'train': with 0 all of them. With ``classes``
    the first folder below the split is the class. Ids are paths relative to ``root``.

    ``shrink_to``: images with a larger short side are shrunk to it when they are read, and stay in memory. For small images of
    large photographs, whose decoding would take most of the time.
    """

    def __init__(
        self,
        root: str | Path,
        split: str = 'train',
        transform: Transform = None,
        classes: bool = True,
        backend: Backend = 'pillow',
        name: str | None = None,
        pixel_limit: int = PIXEL_LIMIT,
        held_out: float = 0.0,
        shrink_to: int | None = None,
        resampler: Resampler = 'pillow',
        decode_to: int | None = None,
    ) -> None:
        split = 'validation' if split == 'val' else split
        if split not in SPLITS:
            raise ConfigError(f"there is no split '{split}'", f'Splits are: {", ".join(SPLITS)}.')
        if not 0 <= held_out < 1:
            raise ConfigError(f'held_out is {held_out}', 'It is a fraction of the images, from 0 to below 1.')
        super().__init__(
            root, split, name or Path(root).name or 'folder', transform, backend, pixel_limit, resampler, decode_to
        )
        if shrink_to is not None and shrink_to < 1:
            raise ConfigError(f'shrink_to is {shrink_to}', 'It is a number of pixels, or None.')
        self.classes, self.held_out = classes, held_out
        self._kept = None if shrink_to is None else Kept(shrink_to)

    @staticmethod
    def as_meant(settings: Mapping[str, Any]) -> dict[str, Any]:
        """``held_out`` means nothing where there are split folders: runs of versions without it have no difference there."""
        root = settings.get('root')
        if isinstance(root, str | Path) and has_split_folders(Path(root).expanduser()):
            return {**settings, 'held_out': 0.0}
        return {**settings}

    def read(self, index: int) -> np.ndarray:
        return super().read(index) if self._kept is None else self._kept.get(index, super().read)

    def encoded(self, index: int) -> bytes | None:
        return super().encoded(index) if self._kept is None else None  # a shrunk image is not that of its file

    def find(self) -> FileIndex:
        divided = self.held_out and self.split != 'test' and not has_split_folders(self.root)
        below = '' if divided else split_folder(self.root, self.split)
        paths = find_images(self.root, below)
        if divided:
            check_level(self.root, paths, self.classes)
        siblings = list(OF_SPLITS) if below else []
        index = label_by_folder(self.root, below, paths, siblings) if self.classes else FileIndex(Names(paths))
        return keep_split(self.root, index, self.split, self.held_out) if divided else index
