"""Files that say what is in a dataset: annotations, lists, tars. A form is a small dataset; one file of it is damaged.

What is accepted is opened as a training opens it: ids, classes and samples of the dataset are read, images too.
"""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import tempfile
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from vq.core.random import python_stream
from vq.data.datasets.celeba_mask import CelebAMaskDataset
from vq.data.datasets.folder import FolderDataset
from vq.data.datasets.idx import IdxDataset
from vq.data.datasets.imagenet import ImageNetDataset
from vq.data.datasets.packed import PackedDataset
from vq.data.datasets.sa_med2d import SAMed2DDataset
from vq.data.datasets.selected import SubsetDataset
from vq.data.datasets.web import WebDataset
from vq.data.packing.rows import Packing
from vq.data.packing.write import pack
from vq.interfaces import Dataset

COUNT = 6  # images of a dataset
MOST = 32  # samples that are read of a damaged one

WNIDS = ('n01440764', 'n01443537')


def images_below(folder: Path, names: Callable[[int], str]) -> None:
    """COUNT small images, each with its own pixels."""
    for number in range(COUNT):
        path = folder / names(number)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels(number)).save(path)


def pixels(number: int) -> np.ndarray:
    rows, columns = np.mgrid[:12, :10]
    return np.stack([rows * 9 + number, columns * 6, rows * columns], -1).astype(np.uint8)


def contents(dataset: Dataset) -> list[Any]:
    """What a training would use of a dataset."""
    found: list[Any] = [len(dataset), list(dataset.categories or ())]
    for index in range(min(len(dataset), MOST)):
        sample = dataset.load(index, python_stream('fuzz', index))
        found.append({name: value for name, value in sample.items() if name != 'path'})
    return found


# ImageNet


def make_imagenet(path: Path) -> None:
    images_below(path, lambda number: f'train/{WNIDS[number % 2]}/{number}.png')
    (path / 'annotations').mkdir()
    listed = [{'image': f'{number}.png', 'synset_id': 1 + number % 2} for number in range(COUNT)]
    (path / 'annotations/train.json').write_text(json.dumps(listed))
    synsets = {str(1 + number): {'WNID': wnid, 'words': f'fish {number}'} for number, wnid in enumerate(WNIDS)}
    (path / 'synsets.json').write_text(json.dumps(synsets))


def read_imagenet(path: Path) -> list[Any]:
    return contents(ImageNetDataset(path))


# idx files


def make_idx(path: Path, compressed: bool) -> None:
    images = np.stack([pixels(number)[..., 0] for number in range(COUNT)])
    for kind, values in (('images', images), ('labels', np.arange(COUNT, dtype=np.uint8))):
        header = bytes((0, 0, 8, values.ndim)) + b''.join(size.to_bytes(4) for size in values.shape)
        name = f'train-{kind}-idx{values.ndim}-ubyte'
        data = header + values.tobytes()
        path.mkdir(exist_ok=True)
        if compressed:
            (path / f'{name}.gz').write_bytes(gzip.compress(data, mtime=0))
        else:
            (path / name).write_bytes(data)


def read_idx(path: Path) -> list[Any]:
    return contents(IdxDataset(path))


# a list of images


def make_medical(path: Path) -> None:
    names = [f'images/ct--x--{number}--1.png' for number in range(COUNT)]
    images_below(path, names.__getitem__)
    (path / 'SAMed2D_v1.json').write_text(json.dumps({name: [f'masks/{number}.png'] for number, name in enumerate(names)}))


def read_medical(path: Path) -> list[Any]:
    return contents(SAMed2DDataset(path))


def make_subset(path: Path) -> None:
    images_below(path, lambda number: f'train/a/{number}.png')
    (path / 'ids.txt').write_text(''.join(f'train/a/{number}.png\n' for number in (4, 1, 3)))


def read_subset(path: Path) -> list[Any]:
    return contents(SubsetDataset(FolderDataset(path, 'train'), ids=str(path / 'ids.txt')))


# parts of faces


def make_faces(path: Path) -> None:
    images_below(path, lambda number: f'CelebA-HQ-img/{number}.jpg')
    (path / 'CelebAMaskHQ-mask').mkdir()
    for number in range(COUNT):
        Image.fromarray((pixels(number)[..., 0] % 19).astype(np.uint8)).save(path / f'CelebAMaskHQ-mask/{number}.png')
    (path / 'train.txt').write_text(''.join(f'{number}.jpg\n' for number in range(COUNT)))


def read_faces(path: Path) -> list[Any]:
    return contents(CelebAMaskDataset(path))


# tars, and packed images


def make_tar(path: Path) -> None:
    path.mkdir()
    for name in ('train-0.tar', 'train-1.tar'):
        with tarfile.open(path / name, 'w', format=tarfile.PAX_FORMAT) as archive:
            for number in range(COUNT):
                image = io.BytesIO()
                Image.fromarray(pixels(number)).save(image, 'PNG')
                for suffix, data in (('png', image.getvalue()), ('cls', b'%d' % (number % 3)), ('txt', 'ü'.encode())):
                    member = tarfile.TarInfo(f'{number}.{suffix}')
                    member.size = len(data)
                    archive.addfile(member, io.BytesIO(data))


def read_tar(path: Path) -> list[Any]:
    return contents(WebDataset(path))


def make_packed(path: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        images_below(Path(folder), lambda number: f'train/{"ab"[number % 2]}/{number}.{("png", "jpg")[number % 2]}')
        dataset = FolderDataset(folder, 'train', name='few')
        pack(dataset, path / 'train', Packing('proportion'), lambda _: nullcontext(lambda count: None), shard_size=4)


def read_packed(path: Path) -> list[Any]:
    return contents(PackedDataset(path))


class Annotated(NamedTuple):
    """``files``: a pattern of those that are damaged. ``checked``: whether the format has checksums of the content."""

    name: str
    make: Callable[[Path], object]
    read: Callable[[Path], list[Any]]
    files: str
    checked: bool = False
    needs: str = ''  # an optional package


ANNOTATED = (
    Annotated('imagenet', make_imagenet, read_imagenet, '**/*.json'),
    Annotated('web', make_tar, read_tar, '*'),
    Annotated('mnist', lambda path: make_idx(path, False), read_idx, '*'),
    Annotated('mnist_gz', lambda path: make_idx(path, True), read_idx, '*'),
    Annotated('sa_med2d', make_medical, read_medical, '*.json'),
    Annotated('ids', make_subset, read_subset, 'ids.txt'),
    Annotated('celeba_mask', make_faces, read_faces, '[Ct]*[k.]*'),
)
PACKED = Annotated('packed', make_packed, read_packed, 'train/*', checked=True)
