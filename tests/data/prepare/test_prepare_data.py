"""``tools/prepare_data.py`` against a server of the same machine: fetched, unpacked, checked, converted, and resumed."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.data.prepare import miniatures
from tests.io.serving import FileServer, serving, stay_on_this_machine
from vq.cli import prepare_data
from vq.core.errors import UserError
from vq.data.datasets.celeba_mask import CelebAMaskDataset
from vq.data.datasets.folder import FolderDataset
from vq.data.datasets.visual_genome import VisualGenomeDataset
from vq.data.prepare import sources, visual_genome
from vq.io import download, json_stream

Outcome = tuple[int, str, str]  # exit code, stdout, stderr


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stay_on_this_machine(monkeypatch)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(download, 'LONGEST_PAUSE', 0.0)


@pytest.fixture
def server() -> Iterator[FileServer]:
    with serving() as server:
        yield server


@pytest.fixture
def command(server: FileServer, capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    def run(*arguments: str, mirror: bool = True) -> Outcome:
        capsys.readouterr()
        code = prepare_data.main([*arguments, *(('--mirror', server.address) if mirror else ())])
        return code, *capsys.readouterr()

    return run


def serve_digests(monkeypatch: pytest.MonkeyPatch, files: dict[str, bytes]) -> None:
    """Put the digests of these archives in the place of the published ones, in the algorithms of those."""

    def renewed(archive: sources.Archive) -> sources.Archive:
        if archive.file.digest is None:
            return archive
        data = next(data for path, data in files.items() if archive.file.url.endswith(path))
        algorithm = archive.file.digest.partition(':')[0]
        digest = f'{algorithm}:{hashlib.new(algorithm, data).hexdigest()}'
        return dataclasses.replace(archive, file=dataclasses.replace(archive.file, digest=digest))

    known = [
        dataclasses.replace(s, archives=tuple(map(renewed, s.archives))) if s.name == 'coco' else s for s in sources.SOURCES
    ]
    monkeypatch.setattr(sources, 'SOURCES', tuple(known))


def test_coco(command, server, monkeypatch):
    server.files = miniatures.coco()
    serve_digests(monkeypatch, server.files)
    code, out, err = command('coco')
    assert (code, err) == (0, '')
    there = {path.relative_to('data/coco').as_posix() for path in Path('data/coco').rglob('*') if path.is_file()}
    kept = {path for path in there if not path.startswith(('archives/', '.'))}
    assert kept == {
        *(f'annotations/{kind}_{split}2017.json' for kind in ('instances', 'captions', 'stuff') for split in ('train', 'val')),
        *(f'{folder}{split}2017/00000000000{n}.{end}' for folder, end in (('', 'jpg'), ('stuffthingmaps/', 'png'))
          for split, n in (('train', 1), ('train', 2), ('val', 3))),
    }  # fmt: skip
    assert 'no published digest' in out and 'train2017.zip fetched, digest md5:' in out
    assert '2 files in data/coco/train2017, and 118,287 are published' in out
    asked = len(server.requests)
    for path in Path('data/coco/archives').glob('*.zip'):
        path.unlink()
    assert command('coco')[0] == 0 and len(server.requests) == asked, 'what is unpacked is not fetched again'


def test_a_damaged_archive_is_not_unpacked(command, server, monkeypatch):
    files = miniatures.coco()
    serve_digests(monkeypatch, files)
    name = '/zips/val2017.zip'
    server.files = {**files, name: files[name][:-1] + b'?'}
    code, _, err = command('coco')
    assert code == 1 and 'val2017.zip.bad' in err and not Path('data/coco/val2017').exists()
    server.files = files
    assert command('coco')[0] == 0


def test_celebamask(command, server):
    server.files['/CelebAMask-HQ.zip'] = miniatures.celebamask()
    code, out, err = command('celebamask')
    assert (code, err) == (0, '') and '5 maps in data/celebamask-hq/CelebAMaskHQ-mask, 5 of them new' in out
    folder = Path('data/celebamask-hq')
    for number in miniatures.FACES:
        found = np.asarray(Image.open(folder / f'CelebAMaskHQ-mask/{number}.png'))
        assert np.array_equal(found, miniatures.map_of(number))
    lists = {split: (folder / f'{split}.txt').read_text().split() for split in ('train', 'val', 'test')}
    assert lists == {'train': ['0.jpg', '1.jpg'], 'val': ['2.jpg', '3.jpg'], 'test': ['4.jpg']}
    assert not (folder / 'README.txt').exists()

    (folder / 'CelebAMaskHQ-mask/3.png').unlink()
    (folder / 'CelebAMaskHQ-mask/4.png').write_bytes(b'')  # left by a machine that lost its power
    assert ', 2 of them new' in command('celebamask')[1]
    assert np.array_equal(np.asarray(Image.open(folder / 'CelebAMaskHQ-mask/4.png')), miniatures.map_of(4))


def test_a_licence_is_for_the_user_to_accept(command, server):
    """Without a mirror the steps are printed, and nothing is asked from anywhere. An archive that lies there is used."""
    code, out, err = command('celebamask', mirror=False)
    assert code == 2 and 'licence: non-commercial' in out and 'data/celebamask-hq/archives/CelebAMask-HQ.zip' in out
    assert 'Follow the steps above' in err
    Path('data/celebamask-hq/archives/CelebAMask-HQ.zip').parent.mkdir(parents=True, exist_ok=True)
    Path('data/celebamask-hq/archives/CelebAMask-HQ.zip').write_bytes(miniatures.celebamask())
    assert command('celebamask', mirror=False)[0] == 0 and not server.requests
    recorded = json.loads(Path('data/digests.json').read_text())
    assert recorded['celebamask-hq/archives/CelebAMask-HQ.zip']['url'] == 'put there by hand'


def test_the_list_and_bad_usage(command):
    code, out, _ = command(mirror=False)
    assert code == 0 and all(source.name in out for source in sources.SOURCES)
    code, _, err = command('cocoo')
    assert code == 2 and "did you mean 'coco'?" in err
    assert set(prepare_data.NAMES) <= {source.name for source in sources.SOURCES}


def test_visual_genome(command, server, monkeypatch, tmp_path):
    h5py = pytest.importorskip('h5py')
    monkeypatch.setattr(visual_genome, 'MIN_COUNT', 2)
    server.files = miniatures.genome()
    Path('splits.json').write_text(json.dumps({'train': [1, 2, 3], 'val': [4], 'test': []}))
    code, out, err = command('vg', '--splits', 'splits.json')
    assert (code, err) == (0, ''), err
    vocabulary = json.loads(Path('data/vg/vocab.json').read_text())
    names = vocabulary['object_idx_to_name']
    assert names == ['__image__', 'man', 'dog', 'tree'] and vocabulary['object_name_to_idx']['tree'] == 3
    with h5py.File('data/vg/train.h5') as file:
        assert file['image_ids'][:].tolist() == [3] and file['objects_per_image'][:].tolist() == [3]
        assert file['image_paths'].asstr()[:].tolist() == ['VG_100K_2/3.jpg']
        assert [names[place] for place in file['object_names'][0, :3]] == ['man', 'dog', 'tree']
        assert file['object_boxes'][0, :4].tolist() == [[0, 40, 45, 40], [5, 40, 50, 40], [15, 40, 50, 40], [-1] * 4]
        assert file['object_ids'][0, :4].tolist() == [30, 31, 32, -1]
    with h5py.File('data/vg/val.h5') as file:
        assert file['image_ids'][:].tolist() == [4] and file['object_names'].shape == (1, 30)
    dataset = VisualGenomeDataset('data/vg')
    sample = dataset.load(0, random.Random(0))
    assert sample['id'] == 'images/VG_100K_2/3.jpg' and sample['text'] == 'man, dog, tree'
    assert sample['boxes'].tolist() == [[0, 40, 45, 80], [5, 40, 55, 80], [15, 40, 65, 80]]
    assert 'are there' in command('vg', '--splits', 'splits.json')[1]
    Path('data/vg/images/VG_100K_2/4.jpg').unlink()
    out = command('vg')[1]
    assert '1 photographs of the list are not in' in out and 'train.h5 has' in out, 'other splits: written again'


@pytest.mark.parametrize(
    ('text', 'why'),
    [
        ('{}', 'not a JSON array'),
        ('[{"image_id": 1, "objects": []}', 'there is the end'),
        ('[{"image_id": 1}]', 'another form'),
        ('[' * 10**5, 'another form|not a JSON array|too deeply'),
        ('[1' + '1' * 10_000 + ']', 'another form|not a JSON array|too deeply'),
        ('', 'there is the end'),
    ],
)
def test_hostile_json_of_visual_genome(text, why, tmp_path, monkeypatch):
    monkeypatch.setattr(json_stream, 'LARGEST', 1000)
    monkeypatch.setattr(json_stream, 'WINDOW', 100)
    (tmp_path / 'objects.json').write_text(text)
    with pytest.raises(UserError, match=why) as caught:
        list(visual_genome.objects_of(tmp_path / 'objects.json', {}))
    assert 'objects.json' in caught.value.message and caught.value.hint


def test_faces(command, server):
    """CelebA-HQ comes from the photographs of CelebAMask-HQ; FFHQ from a folder that was put there by hand."""
    server.files['/CelebAMask-HQ.zip'] = miniatures.celebamask()
    code, out, err = command('celeba_hq', '--size', '8')
    assert (code, err) == (0, '') and 'train 2, val 2, test 1 in data/celeba-hq-8, 5 of them new' in out
    assert Image.open('data/celeba-hq-8/val/00003.png').size == (8, 8)
    assert [len(FolderDataset('data/celeba-hq-8', split=split)) for split in ('train', 'validation', 'test')] == [2, 2, 1]
    assert len(CelebAMaskDataset('data/celebamask-hq')) == 2, 'the lists are those that the dataset reads'

    assert command('ffhq', mirror=False)[0] == 2
    for number in (0, 59_999, 60_000):
        file = Path(f'data/ffhq/raw/images1024x1024/{number // 1000 * 1000:05d}/{number:05d}.png')
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(miniatures.picture(number, 16, 16, 'PNG'))
    code, out, _ = command('ffhq', '--size', '8', mirror=False)
    assert code == 0 and 'train 2, val 1 in data/ffhq-8, 3 of them new' in out and 'unpacked by hand' in out
    assert ', 0 of them new' in command('ffhq', '--size', '8', mirror=False)[1]
    code, _, err = command('ffhq', '--size', '32', mirror=False)
    assert code == 2 and 'is 16 x 16' in err
