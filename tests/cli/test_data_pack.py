"""``vq data pack`` and ``vq data look``: what they write and say, and what they refuse."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vq.cli import data
from vq.core.check import check_config
from vq.core.config import PyConfig
from vq.core.errors import UserError
from vq.core.random import python_stream
from vq.data.datasets.digits import DigitsDataset
from vq.data.datasets.packed import PackedDataset
from vq.io.packed import splits_in
from vq.recipes.data import is_packed
from vq.registries import VQDatasetRegistry


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ('train/a/1.png', 'train/b/2.jpg', 'val/a/3.png', 'more/4.png'):
        file = tmp_path / 'photos' / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(DigitsDataset('test', 48).read(len(name))).save(file)
    return Path('photos')


def test_folders_become_splits(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = ['--train-folder', 'photos/train', '--validation-folder', 'photos/val', '--predict-folder', 'photos/more']
    for _ in range(2):  # the second call finds everything there
        assert data.main(['pack', '--max-resolution', '32', '--output-folder', 'O', *folders]) == 0
    said = capsys.readouterr().out
    assert 'train: 2 images in 1 shards, ' in said and 'nothing, it was complete' in said
    assert 'data=packed data_root=O' in said
    assert splits_in(Path('O')) == ['train', 'validation', 'predict']
    train = PackedDataset('O', 'train')
    assert [train.id_of(index) for index in range(2)] == ['train/a/1.png', 'train/b/2.jpg']  # the ids of FolderDataset
    assert train.categories == PackedDataset('O', 'val').categories == ('a', 'b')
    assert PackedDataset('O', 'predict').categories is None
    assert train.read(1).shape == (32, 32, 3)

    assert data.main(['look', 'O', '--index', '1', '--verify']) == 0
    said = capsys.readouterr().out
    assert 'row 1: train/b/2.jpg' in said and 'its CRC-32 is right' in said and 'class: 1 (b)' in said
    picture = said.split('picture: ')[1].strip()
    assert np.array_equal(np.asarray(Image.open(picture)), train.read(1))


def test_a_config_is_packed_without_its_transforms(photos: Path) -> None:
    choices = ['--config-options', 'data_root::photos', 'held_out:0.5', 'image_size:8']
    assert data.main(['pack', 'folder', '--output-folder', 'O', *choices]) == 0
    assert splits_in(Path('O')) == ['train', 'validation']
    assert PackedDataset('O').read(0).shape == (48, 48, 3)


def test_all_image_configs_take_packed_data() -> None:
    for file in ('vqvae_gan_study/vqgan_1024_adaptive_r1.py', 'vqgan/8192_imagenet_ddp.py', 'photos/tokenizer.py'):
        config = PyConfig.load(file, data='packed', data_root='O')
        for role, split in (('trainer', 'train'), ('validator', 'validation')):
            part = config[role]['dataset']
            assert part['type'].endswith('PackedDataset') and (part['root'], part['split']) == ('O', split)
            assert part['transform'] == PyConfig.load(file)[role]['dataset']['transform']
    for name in ('coco_2014', 'coco_stuff', 'visual_genome', 'hq_faces', 'laion_aesthetics', 'sa_med2d_20m', 'satin', 'few'):
        config = PyConfig.load('vqgan/8192_imagenet_ddp.py', dataset=name, data='packed')
        for role in ('trainer', 'validator'):
            check_config(VQDatasetRegistry, config[role]['dataset'], role)
            assert is_packed(config[role]['dataset']) and config[role]['dataset']['transform']['image_size'] == 256
    generator = PyConfig.load('photos/ar.py', data='packed', data_root='O')
    assert {generator[role]['dataset']['root'] for role in ('trainer', 'validator')} == {'O'} and is_packed(generator)
    with pytest.raises(UserError, match='data_root is not given'):
        PyConfig.load('photos/maskgit.py', data='packed')
    asked = PyConfig.load('datasets/coco_2017.py', data='packed', empty_text=0.1)
    with pytest.raises(UserError, match="PackedDataset has no parameter 'empty_text'"):
        check_config(VQDatasetRegistry, asked.trainer.dataset, 'trainer.dataset')
    with pytest.raises(UserError, match=r'train.beton is a file of FFCV'):
        PyConfig.load('vqgan/8192_imagenet_ddp.py', data_root='data/train.beton')


def test_look_shows_other_shards_too(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from vq.io.shards import ShardWriter

    writer = ShardWriter('tokens', 'tokens', 2, 2, dict(codebook_size=9, token_shape=[4, 4], variants=['center']))
    tokens = np.arange(32).reshape(2, 1, 4, 4) % 9
    writer.write(writer.ranges()[0], dict(tokens=tokens, category=np.array([3, -1])), ['one', 'two'])
    writer.finish()
    latents = ShardWriter('O/validation/latents', 'latents', 2, 2, {})
    latents.write(latents.ranges()[0], dict(mean=np.ones((2, 1, 8, 4, 4), np.float32)), ['three', 'four'])
    latents.finish()
    for words in (['O'], ['O', '--split', 'validation'], ['O/validation']):
        assert data.main(['look', *words, '--index', '1']) == 0
        assert 'row 1: four' in capsys.readouterr().out
    assert data.main(['look', 'tokens', '--index', '-1']) == 0
    said = capsys.readouterr().out
    assert 'row 1: two' in said and 'tokens: (1, 4, 4) uint16, 0 to 8' in said and 'category: -1' in said


@pytest.mark.parametrize(
    ('words', 'message', 'hint'),
    [
        (['pack', '--output-folder', 'O'], 'nothing to pack is given', '--train-folder T'),
        (['pack', 'digits', '--train-folder', 'photos', '--output-folder', 'O'], 'a CONFIG and folders', 'Give one of them'),
        (['pack', 'x/train.beton', '--output-folder', 'O'], 'x/train.beton is a file of FFCV', '--max-resolution 256'),
        (['pack', '--train-folder', 'no', '--output-folder', 'O'], 'the dataset folder no', 'Give the folder'),
        (['pack', '--train-folder', 'photos', '--max-resolution', '0', '--output-folder', 'O'], 'max_resolution is 0', 'help'),
        (['look', 'photos'], 'no set of shards in photos', 'vq data pack'),
        (['look', 'train.beton'], 'train.beton is a file of FFCV', 'vq data pack'),
    ],
)
def test_mistakes_are_named(
    photos: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str, hint: str
) -> None:
    assert data.main(words) == 2
    said = capsys.readouterr().err
    assert message in said and hint in said
    assert not Path('O').exists()


def test_a_row_that_is_not_there(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert data.main(['pack', '--train-folder', 'photos/train', '--output-folder', 'O', '--no-classes']) == 0
    assert PackedDataset('O').load(0, python_stream('x'))['category'] is None
    assert data.main(['look', 'O', '--index', '2']) == 2
    assert 'there is no row 2: O/train has 2' in capsys.readouterr().err
    assert data.main(['look', 'O', '--split', 'test']) == 2
    assert 'test in O: it has train' in capsys.readouterr().err
