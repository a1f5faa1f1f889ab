"""The config pieces under configs/datasets: they compose, pass the check and build."""

from __future__ import annotations

import random
import subprocess
import sys

import pytest
from PIL import Image

from vq.core.check import check_config
from vq.core.config import PyConfig
from vq.core.errors import ConfigError
from vq.core.registry import build_value
from vq.data.loading import LoaderSettings
from vq.registries import VQDatasetRegistry, VQRegistry

INTERFACE = 'configs/datasets/interface.py'


def built(config, role):
    """The dataset and the loader settings of 'trainer' or 'validator', as given to a runner."""
    part = config[role]
    check_config(VQDatasetRegistry, part['dataset'], f'{role}.dataset')
    settings = build_value(VQRegistry, part['dataloader'], LoaderSettings, f'{role}.dataloader')
    assert isinstance(settings, LoaderSettings)
    return VQDatasetRegistry.build(part['dataset'], f'{role}.dataset'), settings


def test_digits_are_the_default_and_come_as_they_are():
    config = PyConfig.load(INTERFACE)
    train, settings = built(config, 'trainer')
    validation, _ = built(config, 'validator')
    assert (train.split, len(train), validation.split, len(validation)) == ('train', 1437, 'validation', 180)
    assert train.transform is validation.transform is None
    assert train.load(0, random.Random(0))['image'].shape == (32, 32, 3)
    assert (settings.batch_size, settings.num_workers, settings.bad_images) == (16, 0, 'raise')


def test_folders_hold_out_a_part_and_both_loaders_have_one_limit_of_bad_images(tmp_path, make_picture):
    for number in range(40):
        Image.fromarray(make_picture(30, 40)).save(tmp_path / f'{number}.png')
    counts = {}
    for options in ({}, {'held_out': 0.4, 'bad_images': 'skip', 'bad_images_limit': 0.5}):
        config = PyConfig.load(INTERFACE, dataset='folder', data_root=str(tmp_path), **options)
        (train, first), (validation, second) = (built(config, role) for role in ('trainer', 'validator'))
        assert (train.held_out, validation.held_out) == (options.get('held_out', 0.05),) * 2
        assert first.bad_image_cap == second.bad_image_cap == options.get('bad_images_limit', 0.2)
        assert {train.id_of(i) for i in range(len(train))}.isdisjoint(validation.id_of(i) for i in range(len(validation)))
        counts[len(options)] = len(train), len(validation)
    assert sum(counts[0]) == sum(counts[3]) == 40
    assert counts[0][1] < counts[3][1]


@pytest.mark.parametrize('dataset', ['digits', 'folder', 'imagenet'])
@pytest.mark.parametrize('augmentation', ['none', 'default', 'weak', 'strong', 'square', 'layout', None])
def test_every_dataset_takes_every_augmentation(dataset, augmentation, tmp_path, make_picture):
    for name in ('train/n1/1.png', 'val/n1/2.png'):
        (tmp_path / name).parent.mkdir(parents=True)
        Image.fromarray(make_picture(30, 40)).save(tmp_path / name)
    options = {} if dataset == 'digits' else {'data_root': str(tmp_path)}
    config = PyConfig.load(
        INTERFACE,
        dataset=dataset,
        image_size=24,
        augmentation=augmentation,
        batch_size=6,
        val_batch_size=5,
        num_workers=1,
        **options,
    )
    for role, split, batch_size in (('trainer', 'train', 6), ('validator', 'validation', 5)):
        data, settings = built(config, role)
        assert data.split == split
        assert (settings.batch_size, settings.num_workers) == (batch_size, 1)
        shape = data.load(0, random.Random(0))['image'].shape
        assert shape == ((30, 40, 3) if augmentation is None and dataset != 'digits' else (24, 24, 3))
        transform = data.transform and data.transform.func.__name__
        assert transform == (augmentation if role == 'trainer' or augmentation is None else 'none')
    assert PyConfig.loads(config.dumps()) == config


def test_file_datasets_have_defaults_of_their_own():
    config = PyConfig.load(INTERFACE, dataset='imagenet')
    train, settings = built(config, 'trainer')
    assert (str(train.root), train.transform.keywords, train.transform.func.__name__) == (
        'data/imagenet',
        {'image_size': 256},
        'strong',
    )
    assert (settings.num_workers, settings.pin_memory) == (4, True)


@pytest.mark.parametrize(
    ('config', 'options', 'expected'),
    [
        ('ddpm/mnist', {}, 'none'),
        ('ddpm/mnist_improved', {}, 'none'),
        ('layout/digits', {}, None),
        ('layout/digits_masks', {}, None),
        ('diffusion/interface', {'dataset': 'mnist'}, 'none'),
        ('diffusion/interface', {'dataset': 'visual_genome'}, 'layout'),
        ('diffusion/interface', {}, 'weak'),
        ('layout/digits', {'augmentation': 'weak'}, 'weak'),
    ],
)
def test_generators_do_not_learn_mirror_images_of_digits(config, options, expected):
    """The mirror image of a 3 is no 3, and half of all training canvases were such images once."""
    transform = PyConfig.load(f'configs/{config}.py', **options)['trainer']['dataset']['transform']
    assert (None if transform is None else transform['type'].rpartition('.')[2]) == expected


def test_options_that_are_misspelt_are_named():
    with pytest.raises(ConfigError, match="did you mean 'image_size'"):
        PyConfig.load(INTERFACE, imagesize=3)
    with pytest.raises(ConfigError, match=r"'digit\.py' does not exist; did you mean 'digits\.py'"):
        PyConfig.load(INTERFACE, dataset='digit')
    wrong = PyConfig.load(INTERFACE, augmentation='weakk')
    with pytest.raises(ConfigError, match=r"unknown type .*; did you mean 'weak'"):
        built(wrong, 'trainer')


def test_a_config_of_ones_own_stands_in(tmp_path):
    (tmp_path / 'mine.py').write_text(
        "size = _kwargs_.get('image_size', 8)\n_export_ = dict(trainer=dict(dataset=dict("
        "type='DigitsDataset', image_size=size)), validator=dict(dataset=dict(type='DigitsDataset')))"
    )
    train, settings = built(PyConfig.load(INTERFACE, dataset=str(tmp_path / 'mine'), image_size=16), 'trainer')
    assert (train.image_size, settings.num_workers) == (16, 4)
    (tmp_path / 'names.py').write_text(
        "name = _kwargs_.get('augmentation')\n_export_ = dict(trainer=dict(dataset=dict(type='FolderDataset', root='images', "
        "transform=dict(type=name, image_size=64))), validator=dict(dataset=dict(type='DigitsDataset')))"
    )
    config = PyConfig.load('configs/diffusion/interface.py', dataset=str(tmp_path / 'names'))
    assert config['trainer']['dataset']['transform']['type'] == 'weak'


@pytest.mark.slow
def test_composing_does_not_import_torch():
    code = f"import sys; from vq.core import PyConfig; PyConfig.load('{INTERFACE}'); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, '-c', code], check=False, timeout=60).returncode == 0
