"""Images in idx files."""

from __future__ import annotations

import gzip
import random
import struct
from pathlib import Path

import numpy as np
import pytest

from vq.core.config import PyConfig
from vq.core.errors import ConfigError, UserError
from vq.data.datasets.idx import IdxDataset
from vq.registries import VQDatasetRegistry

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 4, 6), dtype=np.uint8)
LABELS = np.array([3, 0, 9, 1, 1], np.uint8)


def idx(values: np.ndarray) -> bytes:
    return struct.pack(f'>BBBB{values.ndim}I', 0, 0, 8, values.ndim, *values.shape) + values.tobytes()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Files as they are downloaded: compressed."""
    for part, count in (('train', 5), ('t10k', 2)):
        for kind, values in (('images-idx3', IMAGES[:count]), ('labels-idx1', LABELS[:count])):
            (tmp_path / f'{part}-{kind}-ubyte.gz').write_bytes(gzip.compress(idx(values)))
    return tmp_path


def test_plain_files_are_mapped(root):
    for file in [*root.iterdir()]:
        file.with_name(file.stem.replace('-idx', '.idx')).write_bytes(gzip.decompress(file.read_bytes()))
        file.unlink()
    plain, test = IdxDataset(root), IdxDataset(root, 'validation')
    assert isinstance(plain.images, np.memmap) and len(plain) == 5
    assert len(test) == 2 and test.id_of(1) == 'mnist/validation/000001' and plain.categories == tuple('0123456789')
    for index in range(5):
        sample = plain.load(index, random.Random(0))
        assert np.array_equal(sample['image'], IMAGES[index][:, :, None].repeat(3, 2)) and sample['category'] == LABELS[index]
    turned = IdxDataset(root, transposed=True).read(1)
    assert np.array_equal(turned[:, :, 0], IMAGES[1].T)


def test_a_gzip_file_is_read_and_the_contents_count_in_the_fingerprint(root):
    first = IdxDataset(root)
    assert np.array_equal(first.read(4)[:, :, 1], IMAGES[4])
    (root / 'train-labels-idx1-ubyte.gz').write_bytes(gzip.compress(idx(LABELS[::-1])))
    assert IdxDataset(root).fingerprint() != first.fingerprint() == first.fingerprint()


def test_colours_and_prefixes(root):
    colours = np.random.default_rng(1).integers(0, 256, (5, 4, 6, 3), dtype=np.uint8)
    (root / 'emnist-letters-test-images-idx4-ubyte').write_bytes(idx(colours))
    (root / 'emnist-letters-test-labels-idx1-ubyte').write_bytes(idx(LABELS + 17))
    dataset = IdxDataset(root, 'validation', prefix='emnist-letters-', name='letters', classes=27)
    assert np.array_equal(dataset.read(3), colours[3]) and dataset.category_of(2) == 26
    with pytest.raises(ConfigError, match='the label 26, and classes is 10') as error:
        len(IdxDataset(root, 'validation', prefix='emnist-letters-'))
    assert 'classes to 27' in error.value.hint


def test_the_config_enlarges_them(root):
    config = PyConfig.load('configs/datasets/mnist.py', data_root=str(root))
    for role, count in (('trainer', 5), ('validator', 2)):
        dataset = VQDatasetRegistry.build(config[role].dataset, role)
        assert len(dataset) == count and dataset.load(0, random.Random(0))['image'].shape == (32, 32, 3)


def test_what_is_missing_is_named_beside_what_is_there(root, tmp_path):
    (root / 'train-images-idx3-ubyte.gz').unlink()
    with pytest.raises(ConfigError, match=r'no .*train-images-idx3-ubyte or .*\.gz; .* holds: t10k-images'):
        len(IdxDataset(root))
    with pytest.raises(ConfigError, match='is no folder'):
        len(IdxDataset(tmp_path / 'none'))


@pytest.mark.parametrize(
    ('content', 'words'),
    [
        (b'', 'begins with nothing'),
        (idx(LABELS), 'and 3 or 4 dimensions'),
        (b'\0\0\x0d' + idx(IMAGES)[3:], 'begins with 00 00 0d 03'),
        (idx(IMAGES)[:9], 'a header that says'),
        (struct.pack('>BBBB3I', 0, 0, 8, 3, *3 * [2**31]), 'a header that says'),
        (idx(IMAGES)[:-1], 'and only 119 follow'),
        (idx(IMAGES) + b'x', 'and more follow'),
        (idx(IMAGES[:4]), '4 images, and .* 5 labels'),
    ],
)
@pytest.mark.parametrize('compressed', [True, False])
def test_a_bad_file_is_named(root, content, words, compressed):
    (root / 'train-images-idx3-ubyte.gz').unlink()
    file = root / f'train-images-idx3-ubyte{".gz" if compressed else ""}'
    file.write_bytes(gzip.compress(content) if compressed else content)
    with pytest.raises(UserError, match=words):
        len(IdxDataset(root))


def test_a_damaged_gzip_file_is_named(root):
    file = root / 'train-images-idx3-ubyte.gz'
    whole = file.read_bytes()
    for content in (whole[:-20], whole[:30] + b'xxxx' + whole[34:], b'no gzip'):
        file.write_bytes(content)
        with pytest.raises(UserError, match=r'ubyte\.gz'):
            len(IdxDataset(root))
