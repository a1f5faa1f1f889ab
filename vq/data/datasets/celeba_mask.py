"""CelebAMask-HQ: faces, and for each one map of 19 parts."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vq.core.errors import ConfigError, UserError
from vq.core.reading import read_bytes
from vq.data.datasets.base import FileDataset, FileIndex, Transform
from vq.data.decode import PIXEL_LIMIT, Backend, BadImage
from vq.data.files import what_is_in
from vq.data.labels import decode_labels
from vq.data.names import Names, is_name
from vq.data.pixels import resize_labels
from vq.interfaces import Field, Sample
from vq.registries import VQDatasetRegistry

CLASSES = (
    *('background', 'skin', 'nose', 'eye_g', 'l_eye', 'r_eye', 'l_brow', 'r_brow', 'l_ear', 'r_ear'),
    *('mouth', 'u_lip', 'l_lip', 'hair', 'hat', 'ear_r', 'neck_l', 'neck', 'cloth'),
)  # the label of a part is its place; where parts overlap, the later one stands
IMAGES, MASKS = 'CelebA-HQ-img', 'CelebAMaskHQ-mask'
LISTS = {'train': 'train.txt', 'validation': 'val.txt', 'test': 'test.txt'}
SIDES = tuple((CLASSES.index(f'l_{part}'), CLASSES.index(f'r_{part}')) for part in ('eye', 'brow', 'ear'))


@VQDatasetRegistry.register_()
class CelebAMaskDataset(FileDataset):
    """Splits 'train', 'validation' and 'test'; ``mask`` is the map of parts.

    Images are ``CelebA-HQ-img/NAME.jpg``, maps ``CelebAMaskHQ-mask/NAME.png``. ``train.txt``, ``val.txt``, ``test.txt`` have
    a NAME in each line, with or without a suffix. Labels are places in ``CLASSES``, or 255 for none. A mirror exchanges the
    labels of left and right. Maps of another size than their images are resized to them: the original ones have half of it.
    """

    fields = {'mask': Field('stack', moves='mask', mirrored=SIDES)}
    label_names = CLASSES

    def __init__(
        self,
        root: str | Path = 'data/celebamask-hq',
        split: str = 'train',
        transform: Transform = None,
        backend: Backend = 'pillow',
        name: str = 'celeba_mask',
        pixel_limit: int = PIXEL_LIMIT,
    ) -> None:
        if split not in LISTS:
            raise ConfigError(f"CelebAMask-HQ has no split '{split}'", f'Its splits are: {", ".join(LISTS)}.')
        super().__init__(root, split, name, transform, backend, pixel_limit)

    def find(self) -> FileIndex:
        for needed in (IMAGES, MASKS, LISTS[self.split]):
            if not (self.root / needed).exists():
                there = what_is_in(self.root) if self.root.is_dir() else 'nothing, it is no folder'
                raise ConfigError(
                    f'CelebAMask-HQ needs {self.root / needed}, which does not exist; {self.root} holds: {there}',
                    f'Run: python -m vq.tools.prepare_data celebamask, or set data_root to the folder that holds {IMAGES}/.',
                )
        return FileIndex(Names(f'{IMAGES}/{name}.jpg' for name in read_names(self.root / LISTS[self.split])))

    def original(self, index: int) -> Sample:
        sample = super().original(index)
        mask = self._mask_of(index)
        height, width = sample.size
        if mask.shape[0] * width != mask.shape[1] * height:
            raise BadImage(
                sample['path'], f'is {width} x {height}, and its map {mask.shape[1]} x {mask.shape[0]}, of another shape'
            )
        return sample.but(mask=mask if mask.shape == (height, width) else resize_labels(mask, height, width))

    def _mask_of(self, index: int) -> np.ndarray:
        return decode_labels(self.root / MASKS / f'{Path(self.id_of(index)).stem}.png', len(CLASSES), self.pixel_limit)


def read_names(file: Path) -> list[str]:
    """The names in a list of a split, without suffixes and without empty lines."""
    try:
        lines = read_bytes(file).decode().splitlines()
    except OSError as error:
        raise UserError(f'{file} cannot be read: {error.strerror}', 'It has a NAME in each line.') from error
    except ValueError as error:
        raise UserError(f'{file} is not a list of names: {error}', 'It has a NAME in each line.') from error
    names = [line.strip().removesuffix('.jpg').removesuffix('.png') for line in lines if line.strip()]
    for name in names:
        if not is_name(name):
            raise UserError(f'{file} has an entry that is not the name of a file: {name!r:.80}', 'It has a NAME in each line.')
    if not names or len(set(names)) < len(names):
        what = 'no name' if not names else f'{len(names) - len(set(names))} names twice'
        raise UserError(f'{file} has {what}', 'Write it again: each line is the NAME of one image.')
    return names
