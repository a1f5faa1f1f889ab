"""ImageNet-1k, with or without annotation files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

import numpy as np

from vq.core.errors import ConfigError
from vq.data.datasets.base import FileDataset, FileIndex, Transform
from vq.data.datasets.folder import label_by_folder
from vq.data.decode import PIXEL_LIMIT, Backend
from vq.data.files import find_images
from vq.data.names import Names, is_name
from vq.data.pixels import Resampler
from vq.io import remote
from vq.registries import VQDatasetRegistry

LARGEST = 512_000_000  # bytes of an annotation file; that of the training set has 100,000,000
FOLDERS = {'train': 'train', 'validation': 'val', 'val': 'val'}


@VQDatasetRegistry.register_()
class ImageNetDataset(FileDataset):
    """Splits 'train' and 'validation'.

    With annotations: ``annotations/{train,val}.json`` is a list of ``{image, synset_id}``, ``synsets.json`` maps synset ids
    to ``{WNID, words}``, and images are ``{train,val}/WNID/NAME``. Samples keep the order of the list.
    Without: images are ``{train,val}/WNID/NAME.JPEG``, and the WNID is the class.

    Class numbers follow the sorted WNIDs in both layouts (207 is the golden retriever), as in nearly all published models.
    ``class_order='synset'`` numbers classes by synset id instead, which needs annotations.
    """

    def __init__(
        self,
        root: str | Path = 'data/imagenet',
        split: str = 'train',
        transform: Transform = None,
        backend: Backend = 'pillow',
        class_order: Literal['wnid', 'synset'] = 'wnid',
        name: str = 'imagenet',
        pixel_limit: int = PIXEL_LIMIT,
        resampler: Resampler = 'pillow',
        decode_to: int | None = None,
    ) -> None:
        if split not in FOLDERS:
            raise ConfigError(f"ImageNet has no split '{split}'", "Its splits are 'train' and 'validation'.")
        super().__init__(
            root, 'validation' if split == 'val' else split, name, transform, backend, pixel_limit, resampler, decode_to
        )
        self.class_order = class_order

    def find(self) -> FileIndex:
        folder = FOLDERS[self.split]
        annotations = self.root / 'annotations' / f'{folder}.json'
        if annotations.is_file():
            return self._annotated(folder, annotations)
        if self.class_order == 'synset':
            raise ConfigError(
                f"class_order='synset' needs {annotations}, which does not exist",
                "Use class_order='wnid', or add the annotations.",
            )
        paths = find_images(self.root, folder)
        if any(path.count('/') != 2 for path in paths):
            path = next(path for path in paths if path.count('/') != 2)
            raise ConfigError(
                f'{self.root / path} should lie in {folder}/WNID/, and there is no {annotations}',
                'Sort the images into one folder per WNID, or add the annotations.',
            )
        return label_by_folder(self.root, folder, paths, ['train', 'val'])

    def _annotated(self, folder: str, annotations: Path) -> FileIndex:
        synsets = _leaves(_read_json(self.root / 'synsets.json', dict), self.root / 'synsets.json')
        order = sorted(synsets, key=(lambda key: synsets[key]['WNID']) if self.class_order == 'wnid' else int)
        numbers = {int(key): number for number, key in enumerate(order)}
        prefixes = {int(key): f'{folder}/{synsets[key]["WNID"]}/' for key in order}
        paths, labels = [], []
        for entry in _read_json(annotations, list):
            named = entry if isinstance(entry, dict) else {}
            image, synset = named.get('image', named.get('name')), named.get('synset_id')  # both keys are in use
            if not isinstance(image, str) or not is_name(image) or not isinstance(synset, int) or synset not in numbers:
                raise ConfigError(
                    f'{annotations} has an entry that is not an image of a known class: {entry!r:.80}',
                    'Each entry is {"image": NAME, "synset_id": NUMBER}; synsets.json must have the number.',
                )
            paths.append(prefixes[synset] + image)
            labels.append(numbers[synset])
        if not paths:
            raise ConfigError(f'{annotations} lists no image', 'Copy the complete file, or remove it to list the folders.')
        names = tuple(str(synsets[key].get('words', synsets[key]['WNID'])) for key in order)
        return FileIndex(Names(paths), np.array(labels, dtype=np.int32), names)


def _leaves(synsets: dict[str, Any], file: Path) -> dict[str, Any]:
    """The synsets that are classes. ImageNet's original table also lists their parents, with the number of children."""
    for key, entry in synsets.items():
        wnid = entry.get('WNID') if isinstance(entry, dict) else None
        if not re.fullmatch('[0-9]{1,9}', key) or not isinstance(wnid, str) or not is_name(wnid):
            raise ConfigError(
                f'{file} has an entry without a number or a WNID: {key!r}: {entry!r:.60}',
                'It maps synset ids to {"WNID": ..., "words": ...}.',
            )
    return {key: entry for key, entry in synsets.items() if not entry.get('num_children')}


def _read_json(file: Path, kind: type) -> Any:
    try:
        content = remote.read_json(file, LARGEST, deepest=None)
    except OSError as error:
        raise ConfigError(f'{file} cannot be read: {error.strerror}', 'The annotated layout of ImageNet needs it.') from error
    except ValueError as error:
        raise ConfigError(f'{file} is not JSON: {error}', 'Copy the file again.') from error
    if not isinstance(content, kind):
        raise ConfigError(f'{file} holds a {type(content).__name__}, not a {kind.__name__}', 'Copy the file again.')
    return content
