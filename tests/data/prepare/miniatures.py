"""Datasets of a few files, in the archives and layouts of the real ones."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from vq.data.datasets.celeba_mask import CLASSES


def picture(seed: int, height: int = 24, width: int = 32, kind: str = 'JPEG') -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return encoded(pixels, kind)


def encoded(pixels: np.ndarray, kind: str = 'PNG') -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def archive(files: Mapping[str, bytes | Any]) -> bytes:
    """A zip file; values that are not bytes are written as JSON."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, 'w', zipfile.ZIP_DEFLATED) as opened:
        for name, content in files.items():
            opened.writestr(name, content if isinstance(content, bytes) else json.dumps(content))
    return buffer.getvalue()


def coco() -> dict[str, bytes]:
    """Archives of COCO 2017, by the path of their address."""
    kinds = {'instances': {'annotations': []}, 'captions': {'annotations': []}}
    written = {f'annotations/{kind}_{split}2017.json': body for kind, body in kinds.items() for split in ('train', 'val')}
    stuff = {f'annotations/stuff_{split}2017.json': {'annotations': []} for split in ('train', 'val')}
    maps = {f'{split}2017/00000000000{n}.png': picture(n, kind='PNG') for split, n in (('train', 1), ('train', 2), ('val', 3))}
    images = {name.replace('.png', '.jpg'): picture(seed) for seed, name in enumerate(maps)}
    return {
        '/annotations/annotations_trainval2017.zip': archive(written),
        '/annotations/stuff_annotations_trainval2017.zip': archive(
            {**stuff, 'annotations/stuff_train2017_pixelmaps.zip': b'not unpacked'}
        ),
        '/wp-content/uploads/data/cocostuffdataset/stuffthingmaps_trainval2017.zip': archive(maps),
        **{
            f'/zips/{split}2017.zip': archive({name: data for name, data in images.items() if name.startswith(split)})
            for split in ('train', 'val')
        },
    }


FACES = {0: 119_614, 1: 162_770, 2: 162_771, 3: 182_637, 4: 182_638}  # number of a face -> file of CelebA


def parts_of(number: int) -> dict[str, np.ndarray]:
    """Masks (8, 8) of parts that overlap: the hair covers the left half and the skin, the nose is one pixel."""
    skin, hair, nose = (np.zeros((8, 8, 3), np.uint8) for _ in range(3))
    skin[:, 2:] = 255
    hair[:, :4] = 255
    nose[number % 8, 6] = 255
    return {'skin': skin, 'hair': hair, 'nose': nose}


def map_of(number: int) -> np.ndarray:
    joined = np.zeros((8, 8), np.uint8)
    joined[:, 2:] = CLASSES.index('skin')
    joined[number % 8, 6] = CLASSES.index('nose')
    joined[:, :4] = CLASSES.index('hair')
    return joined


def celebamask() -> bytes:
    """CelebAMask-HQ.zip."""
    files: dict[str, bytes] = {
        'CelebAMask-HQ/README.txt': b'not unpacked',
        'CelebAMask-HQ/.DS_Store': b'not unpacked',
        'CelebAMask-HQ/CelebA-HQ-to-CelebA-mapping.txt': b'idx\torig_idx\torig_file\n'
        + b''.join(b'%d          %d     %06d.jpg\n' % (number, file - 1, file) for number, file in FACES.items()),
    }
    for number in FACES:
        files[f'CelebAMask-HQ/CelebA-HQ-img/{number}.jpg'] = picture(number, 16, 16)
        for part, mask in parts_of(number).items():
            files[f'CelebAMask-HQ/CelebAMask-HQ-mask-anno/{number % 2}/{number:05d}_{part}.png'] = encoded(mask)
    return archive(files)


NAMES = {1: ['man', 'shirt', 'tree'], 2: ['man', 'dog'], 3: ['guy', 'dog', 'tree', 'rare'], 4: ['man', 'dog', 'tree']}


def genome() -> dict[str, bytes]:
    """Archives of Visual Genome, by the path of their address. Image 2 has too few objects, 3 an alias and a rare name."""
    base = 'https://cs.stanford.edu/people/rak248'
    folders = {number: 'VG_100K' if number < 3 else 'VG_100K_2' for number in NAMES}
    images = [
        {'image_id': number, 'url': f'{base}/{folder}/{number}.jpg', 'width': 100, 'height': 80, 'coco_id': None}
        for number, folder in folders.items()
    ]
    objects = [
        {
            'image_id': number,
            'objects': [
                {'object_id': 10 * number + n, 'x': 10 * n - 5, 'y': 40, 'w': 50, 'h': 100, 'names': [name], 'synsets': []}
                for n, name in enumerate(names)
            ]
            + [{'object_id': 99, 'x': 0, 'y': 0, 'w': 31, 'h': 90, 'names': ['man'], 'synsets': []}],  # too narrow
        }
        for number, names in NAMES.items()
    ]
    data = '/~ranjay/visualgenome/data/dataset'
    return {
        f'{data}/image_data.json.zip': archive({'image_data.json': images}),
        f'{data}/objects.json.zip': archive({'objects.json': objects}),
        f'{data}/object_alias.txt': b'man,guy , gentleman\ndog\n',
        **{
            f'/people/rak248/VG_100K_2/{name}.zip': archive(
                {f'{folder}/{number}.jpg': picture(number, 80, 100) for number, each in folders.items() if each == folder}
            )
            for name, folder in (('images', 'VG_100K'), ('images2', 'VG_100K_2'))
        },
    }
