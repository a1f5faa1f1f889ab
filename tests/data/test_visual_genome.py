"""Visual Genome in miniature, with HDF5 files as they are written for graphs of scenes."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vq.core.config import PyConfig
from vq.core.errors import ConfigError, UserError
from vq.data.collate import collate
from vq.data.datasets.visual_genome import VisualGenomeDataset
from vq.registries import VQDatasetRegistry

h5py = pytest.importorskip('h5py')

NAMES = ['__image__', 'tree', 'man', 'dog']
PATHS = ['VG_100K/1.jpg', 'VG_100K_2/2.jpg']
OBJECTS = 12  # places for objects of an image


def arrays() -> dict[str, np.ndarray]:
    """Image 1 has 12 objects of growing size, image 2 has two, of which one begins beyond the image."""
    boxes = np.full((2, OBJECTS, 4), -1)
    boxes[0] = [[place, 0, place + 1, 10] for place in range(OBJECTS)]
    boxes[1, :2] = [[20, 5, 30, 10], [60, 5, 5, 5]]
    names = np.full((2, OBJECTS), -1)
    names[0], names[1, :2] = 1 + np.arange(OBJECTS) % 3, [3, 1]
    return {
        'image_paths': np.array(PATHS, dtype=h5py.string_dtype()),
        'image_ids': np.array([1, 2]),
        'object_ids': np.arange(2 * OBJECTS).reshape(2, OBJECTS),
        'object_names': names,
        'object_boxes': boxes,
        'objects_per_image': np.array([OBJECTS, 2]),
    }


def write(root: Path, content: dict[str, np.ndarray], name: str = 'train.h5') -> None:
    with h5py.File(root / name, 'w') as file:
        for key, value in content.items():
            file.create_dataset(key, data=value)


@pytest.fixture
def root(tmp_path: Path, make_picture) -> Path:
    vocabulary = {'object_idx_to_name': NAMES, 'object_name_to_idx': {name: number for number, name in enumerate(NAMES)}}
    (tmp_path / 'vocab.json').write_text(json.dumps(vocabulary))
    for path in PATHS:
        (tmp_path / 'images' / path).parent.mkdir(parents=True)
        Image.fromarray(make_picture(20, 40)).save(tmp_path / 'images' / path)
    for name in ('train.h5', 'val.h5'):
        write(tmp_path, arrays(), name)
    return tmp_path


def test_the_ten_largest_objects_are_taken(root):
    dataset = VisualGenomeDataset(root)
    assert [dataset.id_of(index) for index in range(len(dataset))] == [f'images/{path}' for path in PATHS]
    first, second = (dataset.load(index, random.Random(0)) for index in range(2))
    assert first['boxes'].tolist() == [[place, 0, 2 * place + 1, 10] for place in range(2, OBJECTS)]
    assert first['box_categories'].tolist() == [1 + place % 3 for place in range(2, OBJECTS)]
    assert first['text'] == 'dog, tree, man' and dataset.label_names == tuple(NAMES)
    assert second['boxes'].tolist() == [[20, 5, 40, 15]] and second['box_categories'].tolist() == [3]
    assert len(VisualGenomeDataset(root, objects=3).load(0, random.Random(0))['boxes']) == 3


def test_the_config_reads_them(root):
    config = PyConfig.load('configs/datasets/interface.py', dataset='visual_genome', data_root=str(root), image_size=16)
    train, validation = (VQDatasetRegistry.build(config[role].dataset, role) for role in ('trainer', 'validator'))
    batch = collate([train.load(index, random.Random(index)) for index in range(2)])
    assert batch.boxes.shape[2] == 4 and batch.boxes_mask[1].sum() == 1 and batch.text[1] == 'dog, tree'
    assert len(validation) == 2


def test_what_is_missing_is_named_beside_what_is_there(root):
    (root / 'train.h5').rename(root / 'training.h5')
    with pytest.raises(ConfigError, match=r'needs .*train\.h5, which does not exist; .* holds: images, training\.h5') as error:
        len(VisualGenomeDataset(root))
    assert 'prepare_data vg' in error.value.hint
    (root / 'images/VG_100K').rename(root / 'images/VG')
    with pytest.raises(ConfigError, match=r'1\.jpg does not exist, and val\.h5 lists it; .* holds: VG,'):
        len(VisualGenomeDataset(root, 'validation'))


@pytest.mark.parametrize(
    ('changes', 'words'),
    [
        ({'object_names': None}, 'has no array object_names; it holds: image_ids'),
        ({'object_names': arrays()['object_names'] + 1}, 'an odd object'),
        ({'object_boxes': -arrays()['object_boxes']}, 'an odd object'),
        ({'object_boxes': arrays()['object_boxes'][:, :3]}, r'object_boxes \(2, 3, 4\)'),
        ({'object_boxes': arrays()['object_boxes'][0]}, r'has the shape \(12, 4\)'),
        ({'objects_per_image': np.array([13, 2])}, 'an odd object'),
        ({'objects_per_image': np.array(['a', 'b'], dtype=h5py.string_dtype())}, 'numbers are needed'),
        ({'image_paths': np.array(['../1.jpg', '2'], dtype=h5py.string_dtype())}, 'leaves images/'),
        ({'image_paths': np.array([PATHS[0]] * 2, dtype=h5py.string_dtype())}, 'lists 1 images twice'),
        ({'image_paths': np.array(['x' * 5000, '2'], dtype=h5py.string_dtype())}, 'no short text'),
        ({'image_paths': np.array([1, 2])}, 'no short text'),
        ({'image_paths': np.array([b'\xff', b'2'])}, 'cannot be read as HDF5'),
    ],
)
def test_odd_files_are_named(root, changes, words):
    write(root, {key: value for key, value in {**arrays(), **changes}.items() if value is not None})
    with pytest.raises(UserError, match=words) as error:
        len(VisualGenomeDataset(root))
    assert 'train.h5' in error.value.message


def test_arrays_of_other_files_and_huge_ones_are_refused(root):
    write(root, {key: value for key, value in arrays().items() if key != 'object_boxes'})
    elsewhere = h5py.ExternalLink('val.h5', 'object_boxes')
    for make, words in (
        (lambda file: file.__setitem__('object_boxes', elsewhere), 'has no array object_boxes'),
        (lambda file: file.create_dataset('object_boxes', (2, 12, 4), 'i8', external='vocab.json'), 'lies in another file'),
        (lambda file: file.create_dataset('object_boxes', (2**20, 2**20, 4), 'i8', chunks=True), 'has the shape'),
        (lambda file: file.create_group('object_boxes'), 'is no array'),
    ):
        with h5py.File(root / 'train.h5', 'a') as file:
            file.pop('object_boxes', None)
            make(file)
        with pytest.raises(UserError, match=words):
            len(VisualGenomeDataset(root))
    for content in (b'', b'no HDF5', (root / 'val.h5').read_bytes()[:700]):
        (root / 'train.h5').write_bytes(content)
        with pytest.raises(UserError, match='cannot be read as HDF5'):
            len(VisualGenomeDataset(root))


def test_a_bad_vocabulary_is_named(root):
    for content in ('{', '[]', '{"object_idx_to_name": [1]}', '{"object_idx_to_name": []}'):
        (root / 'vocab.json').write_text(content)
        with pytest.raises(ConfigError, match=r'vocab\.json'):
            len(VisualGenomeDataset(root))
