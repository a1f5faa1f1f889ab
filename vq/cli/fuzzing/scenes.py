"""Annotations of scenes, for ``vq.tools.fuzz``: COCO's JSON, Visual Genome's HDF5."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from vq.cli.fuzzing.annotations import COUNT, Annotated, contents, images_below
from vq.data.datasets.coco import COCODataset
from vq.data.datasets.coco_stuff import COCOStuffDataset
from vq.data.datasets.visual_genome import VisualGenomeDataset

# COCO


def make_coco(path: Path) -> None:
    images_below(path, lambda number: f'train2017/{number:012d}.jpg')
    images = [{'id': 7 + number, 'file_name': f'{number:012d}.jpg', 'width': 10, 'height': 12} for number in range(COUNT)]
    captions = [{'id': number, 'image_id': 7 + number % COUNT, 'caption': f'words {number}'} for number in range(2 * COUNT)]
    objects: list[dict[str, Any]] = [
        {
            'id': number,
            'image_id': 7 + number % COUNT,
            'category_id': 1 + number // COUNT,
            'bbox': [1.0 + number % 3, 2.0, 5.0, 6.5],
            'area': 32.5,
            'iscrowd': 0,
        }
        for number in range(4 * COUNT)
    ]
    categories: list[dict[str, Any]] = [
        {'id': 1 + number, 'name': f'thing {number}', 'supercategory': 'things'} for number in range(4)
    ]
    folder = path / 'annotations'
    folder.mkdir()
    (folder / 'captions_train2017.json').write_text(json.dumps({'images': images, 'annotations': captions}))
    found = {'images': images, 'annotations': objects, 'categories': categories}
    (folder / 'instances_train2017.json').write_text(json.dumps(found))
    stuff = [{**entry, 'id': 100 + entry['id'], 'category_id': 92 + entry['category_id']} for entry in objects]
    named = [{**entry, 'id': 92 + entry['id']} for entry in categories]
    (folder / 'stuff_train2017.json').write_text(json.dumps({'images': images, 'annotations': stuff, 'categories': named}))


def read_coco(path: Path) -> list[Any]:
    return contents(COCODataset(path, year=2017, captions='caption_and_classes'))


def read_stuff(path: Path) -> list[Any]:
    return contents(COCOStuffDataset(path, year=2017))


# Visual Genome


def make_genome(path: Path) -> None:
    import h5py

    images_below(path, lambda number: f'images/VG_100K/{number}.jpg')
    (path / 'vocab.json').write_text(json.dumps({'object_idx_to_name': ['__image__', 'man', 'tree', 'shirt']}))
    with h5py.File(path / 'train.h5', 'w') as file:
        names = [f'VG_100K/{number}.jpg' for number in range(COUNT)]
        file.create_dataset('image_paths', data=np.array(names, dtype=object), dtype=h5py.string_dtype())
        file.create_dataset('object_names', data=np.arange(COUNT * 3).reshape(COUNT, 3) % 3 + 1)
        file.create_dataset('object_boxes', data=np.tile([1, 2, 4, 5], (COUNT, 3, 1)))
        file.create_dataset('objects_per_image', data=np.full(COUNT, 3))


def read_genome(path: Path) -> list[Any]:
    return contents(VisualGenomeDataset(path))


SCENES = (
    Annotated('coco', make_coco, read_coco, 'annotations/[ci]*.json'),
    Annotated('coco_stuff', make_coco, read_stuff, 'annotations/[is]*.json'),
    Annotated('visual_genome', make_genome, read_genome, '*.*', needs='h5py'),
)
