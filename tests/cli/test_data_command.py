"""``vq data check`` and ``vq data show``: what they print, write and propose."""

from __future__ import annotations

import json
import os
import random
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.messy import make
from vq.cli.data import main
from vq.data.datasets.folder import FolderDataset
from vq.data.decode import decode_image
from vq.data.survey.sheet import GAP, WORDS
from vq.data.transforms import none


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope='module')
def messy(tmp_path_factory):
    return make(tmp_path_factory.mktemp('messy') / 'photos', images=60)


def put(*paths, size=(70, 70)):
    for path in paths:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(list(path.encode())).integers(0, 256, (size[1], size[0], 3), np.uint8)
        Image.fromarray(pixels).save(path)


def proposed(output: str) -> list[str]:
    """The words of the last line."""
    last = output.strip().splitlines()[-1]
    assert last.startswith('next: ')
    return shlex.split(last.removeprefix('next: '))


def options_of(words: list[str]) -> dict[str, str]:
    assert words[:4] == ['vq', 'train', 'tok', 'photos/tokenizer.py']
    return dict(word.split('=', 1) for word in words[4:])


@pytest.mark.slow
def test_a_messy_folder_is_told_in_80_columns(messy, capsys):
    assert main(['check', str(messy.folder), '--json', 'found/photos.json']) == 0
    output = capsys.readouterr().out
    longest = max((line for line in output.splitlines() if str(messy.folder) not in line), key=len)
    assert len(longest) <= 80, longest
    found = json.loads(Path('found/photos.json').read_text())
    for words in (
        f'photos: {len(messy.good)} images in 4 classes, {len(messy.bad)} bad',
        'EXIF rotation',
        'turned upright',
        'Thumbs.db',
        f'duplicates, same bytes: {len(messy.copies)} file',
        f'{found["splits"]["train"]} train, {found["splits"]["validation"]} validation',
        'bad_images=skip leaves them out',
    ):
        assert words in ' '.join(output.split()), words
    assert set(found['bad']) == set(messy.bad)
    assert options_of(proposed(output)) == {'data_root': str(messy.folder)}


@pytest.mark.slow
def test_the_sheet_shows_images_as_validation_does(messy, capsys):
    assert main(['check', str(messy.folder)]) == 0
    path = Path('work_dirs/data/photos/sheet.png')
    assert f'sample sheet: {path}' in capsys.readouterr().out
    sheet = np.asarray(Image.open(path))
    size = (sheet.shape[0] - GAP) // 4 - WORDS - 2 * GAP  # four rows of classes
    first = sorted(name for name in messy.good if name.startswith('boat/'))[0]
    expected = none(decode_image(messy.folder / first), random.Random(0), image_size=size)
    np.testing.assert_array_equal(sheet[GAP + WORDS + GAP :][:size, GAP : GAP + size], expected)


@pytest.mark.parametrize(
    ('files', 'root', 'options'),
    [
        (['photos/a/{}.png', 'photos/b/{}.png'], 'photos', {}),
        (['photos/{}.png', 'photos/a/{}.png'], 'photos', {'classes': 'False'}),
        (['photos/deep/train/a/{}.png', 'photos/deep/val/a/{}.png'], 'photos/deep', {}),
        (['my photos/{}.png'], 'my photos', {}),
        (['2019/{}.png'], './2019', {}),
    ],
)
def test_the_proposed_line_opens_as_a_dataset(files, root, options, capsys):
    put(*(file.format(number) for file in files for number in range(20)))
    given = files[0].split('/')[0]
    assert main(['check', given]) == 0
    found = options_of(proposed(capsys.readouterr().out))
    share = float(found.pop('held_out', 0.1))
    assert found == {'data_root': root, **options}
    classes = options.get('classes') != 'False'
    splits = [FolderDataset(found['data_root'], split, classes=classes, held_out=share) for split in ('train', 'val')]
    assert sum(map(len, splits)) == 20 * len(files)
    assert min(map(len, splits)) > 0


def test_few_and_small_and_bad_images_are_in_the_proposed_line(capsys):
    names = [f'few/{number}.png' for number in range(12)]
    put(*names, size=(40, 50))
    for number in range(7):
        Path(f'few/cut{number}.png').write_bytes(Path(names[0]).read_bytes()[:-200])
    assert main(['check', 'few', '--held-out', '0.001']) == 0
    output = capsys.readouterr().out
    found = options_of(proposed(output))
    assert found['image_size'] == '32'
    assert 'there is no validation image' in output
    share = float(found['held_out'])
    readable = [name for name in FolderDataset('few', 'val', held_out=share).index.paths if not name.startswith('cut')]
    assert len(readable) >= 1
    assert float(found['bad_images_limit']) >= 0.2


def test_leaks_are_loud(capsys):
    put('photos/train/a/1.png', 'photos/val/a/2.png')
    Path('photos/val/a/3.png').write_bytes(Path('photos/train/a/1.png').read_bytes())
    assert main(['check', 'photos']) == 0
    assert 'LEAKAGE: 2 equal images lie in more than one split' in ' '.join(capsys.readouterr().out.split())


def test_what_training_refuses_leads_to_another_check(capsys):
    put('photos/a/1.png', 'photos/b/2.png')
    os.mkfifo('photos/a/queue.png')
    assert main(['check', 'photos']) == 0
    output = capsys.readouterr().out
    assert 'a/queue.png' in output
    assert proposed(output)[:4] == ['vq', 'data', 'check', 'photos']


def test_names_cannot_steer_the_terminal(capsys):
    put('photos/a/1.png', 'photos/b/2.png')
    Path('photos/a/\x1b[31mred\n.png').write_bytes(b'')
    Path('photos/b/\x1b]0;title\x07.txt').write_bytes(b'')
    assert main(['check', 'photos']) == 0
    output = capsys.readouterr().out
    assert '\x1b' not in output
    assert '\x07' not in output
    assert '\\x1b[31mred\\n.png' in output


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        (['check', 'nowhere'], 'nowhere does not exist'),
        (['check', 'file.png'], 'file.png is a file'),
        (['check', 'empty'], 'empty holds no image, only: nothing'),
        (['check', 'photos', '--held-out', '1.5'], '--held-out is 1.5'),
        (['show', 'photos', '--index', '2'], 'there is no image 2: photos has 2'),
        (['show', 'photos', '--index', '1'], 'bad image photos/2.png: is empty'),
        (['show', 'photos', '--image-size', '0'], '--image-size is 0'),
    ],
)
def test_wrong_calls_are_answered_and_write_nothing(arguments, words, capsys):
    put('photos/1.png', 'file.png')
    Path('photos/2.png').write_bytes(b'')
    Path('empty').mkdir()
    before = sorted(Path('.').rglob('*'))
    assert main(arguments) == 2
    assert words in capsys.readouterr().err
    assert sorted(Path('.').rglob('*')) == before


def test_show_gives_the_image_before_and_after(messy, capsys):
    names = FolderDataset(messy.folder).index.paths
    index = next(place for place, name in enumerate(names) if name.endswith('.JPG'))  # rotated by EXIF
    assert main(['show', str(messy.folder), '--index', str(index), '--image-size', '48']) == 0
    output = capsys.readouterr().out
    decoded = decode_image(messy.folder / names[index])
    assert f'image {index} of {len(names)}: {messy.folder / names[index]}' in output
    assert 'EXIF rotation: turned upright' in output
    assert f'decoded: {decoded.shape} uint8' in output
    assert 'validation: (48, 48, 3) uint8' in output
    picture = np.asarray(Image.open(f'work_dirs/data/photos/show_{index}.png'))
    factor = 192 // 48
    top = (192 + WORDS + 2 * GAP) + GAP + WORDS + GAP
    shown = picture[top : top + 192 : factor, GAP : GAP + 192 : factor]
    np.testing.assert_array_equal(shown, none(decoded, random.Random(0), image_size=48))


@pytest.mark.slow
def test_check_works_without_torch_and_as_a_module(tmp_path):
    put('photos/a/1.png', 'photos/b/2.png')
    code = (
        'import sys; from vq.cli.data import main; code = main(["check", "photos"]); '
        'assert "torch" not in sys.modules, "torch"; sys.exit(code)'
    )
    environment = {**os.environ, 'PYTHONPATH': str(Path(__file__).parents[2])}
    for words in (['-c', code], ['-m', 'vq.data', 'check', 'photos']):
        done = subprocess.run([sys.executable, *words], cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip().splitlines()[-1].startswith('next: vq train tok photos/tokenizer.py data_root=photos')
