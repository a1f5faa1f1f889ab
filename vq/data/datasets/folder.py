"""A folder of images, at any depth."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vq.core.errors import ConfigError
from vq.data.datasets.base import FileDataset, FileIndex, Transform
from vq.data.decode import PIXEL_LIMIT, Backend
from vq.data.files import find_images, folders_in, what_is_in
from vq.data.names import Names
from vq.registries import VQDatasetRegistry

SPLITS = {'train': ('train',), 'validation': ('validation', 'val'), 'test': ('test',)}  # split -> names of its folder


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
            f'Make the folder {" or ".join(SPLITS[split])}, or use another split.',
        )
    if split != 'train' and root.is_dir():
        raise ConfigError(
            f"{root} has no split folders, so all of it is the split 'train' and '{split}' is empty",
            'Sort the images into train/, validation/ and test/, or give a split a root of its own.',
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


@VQDatasetRegistry.register_()
class FolderDataset(FileDataset):
    """Images below ``root/SPLIT``, or below ``root`` if it has no split folders (then all of it is 'train').

    Folders of splits are ``train``, ``validation`` (or ``val``) and ``test``. With ``classes`` the first folder below the
    split is the class. Ids are paths relative to ``root``.
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
    ) -> None:
        split = 'validation' if split == 'val' else split
        if split not in SPLITS:
            raise ConfigError(f"there is no split '{split}'", f'Splits are: {", ".join(SPLITS)}.')
        super().__init__(root, split, name or Path(root).name or 'folder', transform, backend, pixel_limit)
        self.classes = classes

    def find(self) -> FileIndex:
        below = split_folder(self.root, self.split)
        paths = find_images(self.root, below)
        if not self.classes:
            return FileIndex(Names(paths))
        siblings = [folder for folders in SPLITS.values() for folder in folders] if below else []
        return label_by_folder(self.root, below, paths, siblings)
