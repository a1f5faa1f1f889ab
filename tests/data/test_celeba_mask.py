"""CelebAMask-HQ: images with maps of parts, whose sides a mirror exchanges; and files of labels."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vq.core.config import PyConfig
from vq.core.errors import ConfigError, UserError
from vq.data.collate import collate
from vq.data.datasets.celeba_mask import CLASSES, CelebAMaskDataset
from vq.data.datasets.combined import ConcatDataset
from vq.data.decode import BadImage
from vq.data.fields import all_fields
from vq.data.geometry import Geometry
from vq.data.labels import decode_labels
from vq.interfaces import Field, Sample
from vq.registries import VQDatasetRegistry

LEFT, RIGHT, HAIR = (CLASSES.index(name) for name in ('l_eye', 'r_eye', 'hair'))


@pytest.fixture
def root(tmp_path: Path, make_picture) -> Path:
    """Three faces of 16 x 16, with maps of 8 x 8, as in the original: the left eye is in the right half."""
    for folder in ('CelebA-HQ-img', 'CelebAMaskHQ-mask'):
        (tmp_path / folder).mkdir()
    labels = np.zeros((8, 8), np.uint8)
    labels[2, 5], labels[2, 1], labels[0], labels[7] = LEFT, RIGHT, HAIR, 255
    for name in '012':
        Image.fromarray(make_picture(16, 16, seed=int(name))).save(tmp_path / f'CelebA-HQ-img/{name}.jpg')
        Image.fromarray(labels).save(tmp_path / f'CelebAMaskHQ-mask/{name}.png')
    (tmp_path / 'train.txt').write_text('2.jpg\n0\n')
    (tmp_path / 'val.txt').write_text('1.jpg\n\n')
    return tmp_path


def test_faces_have_maps_of_their_size(root):
    train, validation = CelebAMaskDataset(root), CelebAMaskDataset(root, 'validation')
    assert [train.id_of(index) for index in range(len(train))] == ['CelebA-HQ-img/2.jpg', 'CelebA-HQ-img/0.jpg']
    assert (len(validation), validation.id_of(0)) == (1, 'CelebA-HQ-img/1.jpg')
    sample = train.load(0, random.Random(0))
    assert sample['image'].shape == (16, 16, 3)
    small = decode_labels(root / 'CelebAMaskHQ-mask/2.png', 19)
    assert np.array_equal(sample['mask'], small.repeat(2, 0).repeat(2, 1))
    assert {CLASSES[label] for label in np.unique(small) if label != 255} == {'background', 'l_eye', 'r_eye', 'hair'}
    assert len(CLASSES) == len(set(CLASSES)) == 19


def test_a_mirror_exchanges_left_and_right(root):
    sample = CelebAMaskDataset(root).load(0, random.Random(0))
    once, twice = Geometry.of(sample).mirror().move(sample), Geometry.of(sample).mirror().mirror().move(sample)
    assert (sample['mask'][4, 10], sample['mask'][4, 2]) == (LEFT, RIGHT)
    assert (once['mask'][4, 13], once['mask'][4, 5]) == (LEFT, RIGHT)  # the eyes of the mirrored face
    assert (once['mask'][0] == HAIR).all() and (once['mask'][15] == 255).all()
    assert np.array_equal(twice['mask'], sample['mask'])
    plain = Sample(id='other', image=sample['image'], mask=sample['mask'])
    assert Geometry.of(plain).mirror().move(plain)['mask'][4, 13] == RIGHT  # another dataset has no sides


def test_the_config_reads_them(root):
    config = PyConfig.load('configs/datasets/interface.py', dataset='celeba_mask', image_size=8, data_root=str(root))
    train, validation = (VQDatasetRegistry.build(config[role].dataset, role) for role in ('trainer', 'validator'))
    batch = collate([train.load(index, random.Random(index)) for index in range(2)])
    assert (batch.image.shape, batch.mask.shape) == ((2, 3, 8, 8), (2, 8, 8))
    assert batch.extra == {} and validation.load(0, random.Random(0))['mask'].shape == (8, 8)


def test_a_combination_passes_on_the_fitted_map(root):
    both = ConcatDataset({'a': CelebAMaskDataset(root), 'b': CelebAMaskDataset(root, 'validation')})
    assert both.label_names == CLASSES
    original, loaded = both.original(2), both.load(2, random.Random(0))
    assert original['id'] == loaded['id'] == 'b/CelebA-HQ-img/1.jpg' and original['mask'].shape == (16, 16)
    assert Geometry.of(original).mirror().move(original)['mask'][4, 13] == LEFT


@pytest.mark.parametrize('needed', ['CelebAMaskHQ-mask', 'val.txt'])
def test_what_is_missing_is_named_beside_what_is_there(root, needed):
    (root / needed).rename(root / 'elsewhere')
    with pytest.raises(ConfigError, match=rf'{needed}, which does not exist; .* holds: CelebA-HQ-img, .*elsewhere') as error:
        len(CelebAMaskDataset(root, 'validation'))
    assert 'prepare_data celebamask' in error.value.hint


@pytest.mark.parametrize(
    ('content', 'words'),
    [
        (b'', 'has no name'),
        (b'1\n1.jpg\n', '1 names twice'),
        (b'../1.jpg\n', 'not the name of a file'),
        (b'\xff\xfe', 'not a list'),
    ],
)
def test_a_bad_list_is_refused(root, content, words):
    (root / 'train.txt').write_bytes(content)
    with pytest.raises(UserError, match=words):
        len(CelebAMaskDataset(root))


def test_bad_maps_are_bad_images(root, encode):
    file = root / 'CelebAMaskHQ-mask/2.png'
    good = file.read_bytes()
    colours = np.zeros((8, 8, 3), np.uint8)
    for content, words in (
        (encode(np.full((8, 8), 19, np.uint8), 'PNG'), 'the label 19, and labels are below 19'),
        (encode(np.zeros((8, 4), np.uint8), 'PNG'), 'its map 4 x 8, of another shape'),
        (encode(colours, 'PNG'), 'one label of 8 bits'),
        (encode(colours[:, :, 0], 'JPEG'), 'is not a PNG file'),
        (good[:-20], 'cannot be decoded'),
        (good[:60] + b'x' + good[61:], 'checksum'),
        (b'', 'is not a PNG file'),
    ):
        file.write_bytes(content)
        with pytest.raises(BadImage, match=words):
            CelebAMaskDataset(root).load(0, random.Random(0))
    file.unlink()
    with pytest.raises(BadImage, match='No such file'):
        CelebAMaskDataset(root).load(0, random.Random(0))
    palette = Image.fromarray(np.arange(16, dtype=np.uint8).reshape(4, 4))
    palette.putpalette(list(range(255, -1, -1)) * 3)
    file.write_bytes(encode(palette, 'PNG'))
    assert np.array_equal(decode_labels(file, 19), np.arange(16).reshape(4, 4))  # places in the palette, not its colours


def test_only_masks_are_declared_again_and_only_with_what_a_mirror_exchanges():
    with pytest.raises(ConfigError, match='mirrored='):
        Field('stack', mirrored=((1, 2),))
    for field in (Field('stack', 'int64', moves='mask'), Field('list')):
        with pytest.raises(ConfigError, match='declares the field mask, which samples have already'):
            all_fields({'mask': field})
