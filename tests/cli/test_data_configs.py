"""``vq data`` on configs: exact statistics, and what a model sees of samples with boxes, masks and words."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vq.cli.data import main
from vq.core.random import python_stream
from vq.data import spread
from vq.data.datasets.digits import DigitsDataset
from vq.data.decode import decode_image
from vq.data.survey.drawing import colour
from vq.data.survey.sheet import GAP, WORDS
from vq.data.transforms import none, weak

MODULE = '''
import numpy as np

from vq.data.datasets.base import ImageDataset, Transform
from vq.registries import VQDatasetRegistry


@VQDatasetRegistry.register_()
class SceneDataset(ImageDataset):
    """Image i is grey, 96 x 192, with a box of category i on the left, and a mask of the right half."""

    categories = ('cat', 'dog')

    def __init__(self, split: str = 'train', transform: Transform = None) -> None:
        super().__init__('scenes', split, transform)

    def __len__(self):
        return 2

    def id_of(self, index):
        return f'scene {index}'

    def read(self, index):
        return np.full((96, 192, 3), 100, np.uint8)

    def annotations_of(self, index):
        mask = np.zeros((96, 192), np.int64)
        mask[:, 96:] = 3
        return dict(boxes=[[10, 20, 60, 80]], box_categories=[index], mask=mask, text='a cat and a dog')
'''

CONFIG = """
custom_imports = ['scenes_of_test']
trainer = dict(dataset=dict(type='SceneDataset', transform=dict(type='VQTransformRegistry.none', image_size=48)))
"""


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.mark.slow
def test_statistics_are_exact(monkeypatch, capsys):
    assert main(['stats', 'digits', 'image_size=16', '--workers', '1']) == 0
    found = json.loads(Path('work_dirs/data/digits/stats.json').read_text())['splits']
    dataset = DigitsDataset('validation', 16)
    pixels = np.stack([dataset.read(index) for index in range(len(dataset))]).reshape(-1, 3).astype(np.float64)
    assert found['validation']['images'] == 180 and found['validation']['pixels'] == len(pixels)
    np.testing.assert_allclose(found['validation']['uint8']['mean'], pixels.mean(0), rtol=1e-15)
    np.testing.assert_allclose(found['validation']['uint8']['std'], pixels.std(0), rtol=1e-13)
    np.testing.assert_allclose(found['validation']['-1..1']['std'], (pixels * 2 / 255 - 1).std(0), rtol=1e-13)
    assert sum(found['train']['classes'].values()) == found['train']['images'] == 1437
    assert f'validation: 180 images of 10 classes, mean {pixels.mean() / 255:.6f}' in capsys.readouterr().out
    monkeypatch.setattr(spread, 'WORTH_PROCESSES', 1)
    assert main(['stats', 'digits', 'image_size=16', '--workers', '2', '--split', 'validation', '--json', 'two.json']) == 0
    assert json.loads(Path('two.json').read_text())['splits'] == {'validation': found['validation']}


def test_statistics_of_a_folder_are_of_cropped_images_without_augmentation(capsys):
    made = {}
    for number, split in enumerate(('train', 'val')):
        for name in 'abc':
            path = Path('photos', split, 'x', f'{name}.png')
            path.parent.mkdir(parents=True, exist_ok=True)
            made[path] = np.random.default_rng([number, *name.encode()]).integers(0, 256, (20, 30, 3), np.uint8)
            Image.fromarray(made[path]).save(path)
    Path('photos/train/x/bad.png').write_bytes(b'not an image')
    assert main(['stats', 'photos', 'image_size=16']) == 0
    assert 'train: 3 images of 1 classes, 1 bad, mean' in capsys.readouterr().out
    found = json.loads(Path('work_dirs/data/photos/stats.json').read_text())
    assert found['transform']['type'].endswith('none') and found['splits']['train']['bad'].keys() == {'train/x/bad.png'}
    cropped = np.stack([none(image, None, image_size=16) for path, image in made.items() if 'train' in path.parts])
    np.testing.assert_allclose(found['splits']['train']['uint8']['mean'], cropped.reshape(-1, 3).mean(0), rtol=1e-14)


@pytest.mark.slow
def test_check_of_a_config_finds_faults_copies_and_times_an_epoch(capsys):
    for number, (split, kind, name) in enumerate(itertools.product(('train', 'val'), 'xy', 'abc')):
        path = Path('photos', split, kind, f'{name}.png')
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(number).integers(0, 256, (20, 30 + number, 3), np.uint8)).save(path)
    Path('photos/val/y/a.png').write_bytes(Path('photos/train/y/a.png').read_bytes())
    Image.open('photos/train/x/a.png').save('photos/train/x/again.bmp')
    Path('photos/train/x/bad.png').write_bytes(b'not an image')
    Image.open('photos/train/x/c.png').convert('L').save('photos/train/x/c.png')
    called = ['check', 'folder', 'data_root=photos', 'image_size=16', '--workers', '1', '--json', 'found.json']
    assert main([*called, '--seconds', '0.05']) == 0
    output = ' '.join(capsys.readouterr().out.split())
    found = json.loads(Path('found.json').read_text())
    assert found['images'] == 13 and found['bad'].keys() == {'train/x/bad.png'}
    assert found['classes'] == {'x': {'train': 4, 'validation': 3}, 'y': {'train': 3, 'validation': 3}}
    assert found['in_several_splits'] == found['copies'] == [['train/y/a.png', 'val/y/a.png']]
    assert found['same_pixels'] == [['train/x/a.png', 'train/x/again.bmp']]
    assert found['kinds'] == {'RGB, 8 bits': 12, 'grey': 1}
    assert found['width'] == {'smallest': 30, 'median': 34.0, 'largest': 41}
    assert found['pixels']['train']['pixels'] == 7 * 16 * 16
    assert found['epochs']['train']['images'] == 8 and found['epochs']['train']['rate'] > 0
    for words in (
        'LEAKAGE: 2 equal images',
        'an epoch of 8 images takes',
        'mean 0.',
        'next: vq data show folder data_root=photos image_size=16',
    ):
        assert words in output, words
    page = Path('work_dirs/data/photos/report.html').read_text()
    for words in ('train/x/bad.png', 'LEAKAGE', 'Epoch of train', 'data:image/png;base64'):
        assert words in page, words
    assert np.asarray(Image.open('work_dirs/data/photos/sheet.png')).std() > 10


def test_show_draws_the_epochs_of_a_run(capsys):
    assert main(['show', 'digits', 'augmentation=weak', 'image_size=(48, 32)', '--index', '-1', '--seed', '5']) == 0
    output = capsys.readouterr().out
    dataset = DigitsDataset('train', (48, 32))
    assert f'sample 1436 of 1437 of digits, split train: {dataset.id_of(1436)}' in output
    picture = np.asarray(Image.open('work_dirs/data/digits/show_train_1436.png'))
    top = (GAP + WORDS + 192 + GAP) + GAP + WORDS + GAP - GAP
    for epoch in range(6):
        expected = weak(dataset.read(1436), python_stream('sample', 5, epoch, 1436), image_size=(48, 32))
        left = GAP + epoch * (192 + GAP)
        shown = picture[top + GAP : top + GAP + 192 : 4, left : left + 128 : 4]
        np.testing.assert_array_equal(shown, expected)


def test_what_has_no_images_is_refused(capsys):
    Path('tokens.py').write_text("trainer = dict(dataset=dict(type='TokenDataset', folder='nowhere'))")
    assert main(['show', 'tokens.py']) == 2
    assert 'there are no token shards in nowhere' in capsys.readouterr().err


def test_show_draws_boxes_masks_and_words(capsys):
    Path('scenes_of_test.py').write_text(MODULE)
    Path('scenes.py').write_text(CONFIG)
    assert main(['show', 'scenes.py', '--index', '1']) == 0
    output = capsys.readouterr().out
    for words in ('text: a cat and a dog', 'boxes: 1: 1 dog', 'mask: (48, 48), labels 0 cat, 3', 'image: (96, 192, 3) uint8'):
        assert words in output, words
    picture = decode_image('work_dirs/data/scenes/show_train_1.png')
    lines = next(count for count in range(1, 5) if (picture[GAP + WORDS * count + GAP, GAP] == 100).all())
    image = picture[GAP + WORDS * lines + GAP :][:96, GAP:][:, :192]
    edge = (image == colour(1)).all(-1)
    assert edge[20, 10:60].all() and edge[79, 10:60].all() and edge[20:80, 10].all() and edge[20:80, 59].all()
    mask = picture[GAP + WORDS * lines + GAP :][:96, GAP + 192 + GAP :][:, :192]
    assert (mask[:, :96] == 100).all()
    assert (mask[:, 96:] == (np.array(colour(3)) + 100) // 2).all()


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        (['show', 'digits', '--index', '1437'], 'there is no image 1437: digits, split train, has 1437'),
        (['show', 'digits', '--image-size', '8'], 'Write image_size=8 after it'),
        (['show', 'photos', 'image_size=8'], 'image_size belongs to a config'),
        (['check', 'photos', '--split', 'train'], '--split belongs to a config'),
        (['check', 'digits', '--held-out', '0.2'], 'Write held_out=0.2 after it'),
        (['check', 'digits', '--seconds', '-1'], '--seconds is -1'),
        (['stats', 'digits', 'size=8'], "'size'"),
        (['stats', 'digits', '--splits', 'train'], "did you mean '--split'"),
        (['stats', 'digits/nothing.py'], 'digits/nothing.py'),
    ],
)
def test_wrong_calls_are_answered(arguments, words, capsys):
    Path('photos').mkdir()
    assert main(arguments) == 2
    assert words in capsys.readouterr().err
