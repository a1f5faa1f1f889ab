"""Tables of rows as datasets: what ``datasets`` saves, parquet files, SATIN and LAION-Aesthetics."""

from __future__ import annotations

import io
import itertools
import json
import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.data.test_tars import ids, png, samples, write
from vq.core.config import PyConfig
from vq.core.errors import ConfigError, UserError
from vq.data.datasets.hugging_face import HuggingFaceDataset
from vq.data.datasets.laion import LAIONAestheticsDataset
from vq.data.datasets.satin import SUBSETS, SATINDataset
from vq.data.decode import BadImage
from vq.data.loading import Loader, LoaderSettings
from vq.data.plan import training_plan
from vq.registries import VQDatasetRegistry

pa = pytest.importorskip('pyarrow')
pq = pytest.importorskip('pyarrow.parquet')


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))


def first(dataset: Any, index: int = 0) -> Any:
    return dataset.load(index, random.Random(0))


def save(path: Path, rows: int, start: int = 0, group: int = 2, **columns: Any) -> Path:
    """A parquet file as img2dataset or a repository has it, or an Arrow stream as ``datasets`` has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    numbers = range(start, start + rows)
    table = pa.table(
        {'image': [{'bytes': png(n), 'path': None} for n in numbers], 'label': [n % 3 for n in numbers], **columns}
    )
    features = {'image': {'_type': 'Image'}, 'label': {'names': ['a', 'b', 'c'], '_type': 'ClassLabel'}}
    table = table.replace_schema_metadata({'huggingface': json.dumps({'info': {'features': features}})})
    if path.suffix == '.parquet':
        pq.write_table(table, path, row_group_size=group)
    else:
        with pa.OSFile(str(path), 'wb') as sink, pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table, max_chunksize=group)
    return path


@pytest.mark.slow
def test_datasets_that_the_package_saved_are_read_back(tmp_path: Path) -> None:
    datasets = pytest.importorskip('datasets')
    features = datasets.Features({'image': datasets.Image(), 'label': datasets.ClassLabel(names=['cat', 'dog'])})
    rows = {'image': [Image.new('RGB', (5, 4), (n, 0, 0)) for n in range(7)], 'label': [n % 2 for n in range(7)]}
    made = datasets.Dataset.from_dict(rows, features=features)
    made.save_to_disk(tmp_path / 'one', num_shards=3)
    datasets.DatasetDict(train=made, test=made.select([6, 2]).flatten_indices()).save_to_disk(tmp_path / 'two')
    one = HuggingFaceDataset(tmp_path / 'one')
    assert ids(one)[:4] == [f'data-0000{file}-of-00003/{row}' for file, row in ((0, 0), (0, 1), (0, 2), (1, 0))]
    assert one.categories == ('cat', 'dog')
    assert [(int(first(one, n)['image'][0, 0, 0]), first(one, n)['category']) for n in range(7)] == [
        (n, n % 2) for n in range(7)
    ]
    assert [len(HuggingFaceDataset(tmp_path / 'two', split)) for split in ('train', 'test')] == [7, 2]
    assert int(HuggingFaceDataset(tmp_path / 'two', 'test').read(0).max()) == 6
    (tmp_path / 'one/data-00001-of-00003.arrow').unlink()
    with pytest.raises(ConfigError, match=r'lacks 1 of 3 files: data-00001-of-00003\.arrow'):
        len(HuggingFaceDataset(tmp_path / 'one'))


@pytest.mark.parametrize('suffix', ['parquet', 'arrow'])
def test_rows_of_files_named_by_splits(tmp_path: Path, suffix: str) -> None:
    save(tmp_path / f'data/x-train-00000-of-00002.{suffix}', 5, caption=[f'word {n}' for n in range(5)])
    save(tmp_path / f'data/x-train-00001-of-00002.{suffix}', 3, 5, caption=['', None, 'last'])
    train = HuggingFaceDataset(tmp_path)
    assert [int(train.read(n).max()) for n in range(8)] == list(range(8))
    assert (first(train, 4)['text'], first(train, 7)['text'], first(train, 6).get('text')) == ('word 4', 'last', None)
    assert (train.categories, first(train, 5)['category']) == (('a', 'b', 'c'), 2)
    save(tmp_path / f'data/x-validation.{suffix}', 2, caption=['', ''])
    assert [len(HuggingFaceDataset(tmp_path, split)) for split in ('train', 'validation', 'all')] == [8, 2, 10]
    save(tmp_path / f'data/more.{suffix}', 2, caption=['', ''])
    with pytest.raises(ConfigError, match=rf'more\.{suffix} is named by none'):
        len(HuggingFaceDataset(tmp_path))


@pytest.mark.parametrize('suffix', ['parquet', 'arrow'])
def test_workers_read_what_this_process_reads(tmp_path: Path, suffix: str) -> None:
    dataset = HuggingFaceDataset(save(tmp_path / f'w/0.{suffix}', 12).parent)
    assert int(dataset.read(11).max()) == 11  # the file is open when workers are forked
    found = []
    for workers in (0, 2):
        plan = training_plan(12, 4, 0, 1, seed=1)
        with Loader(dataset, plan, LoaderSettings(4, workers), 1, training=True) as loader:
            found.append(
                [
                    (name, int(image.max()))
                    for batch in itertools.islice(loader, 5)
                    for name, image in zip(batch.id, batch.image, strict=True)
                ]
            )
    assert found[0] == found[1]


def test_columns_are_found_or_named(tmp_path: Path) -> None:
    table = pa.table({'jpg': [png(3)], 'TEXT': ['x'], 'n': [7], 'word': ['y'], 'gone': pa.array([None], pa.binary())})
    pq.write_table(table, tmp_path / '0.parquet')
    found = HuggingFaceDataset(tmp_path, label='n', text='word')
    assert (found.categories, first(found)['category'], first(found)['text']) == (None, 7, 'y')
    assert 'category' not in first(HuggingFaceDataset(tmp_path)) or first(HuggingFaceDataset(tmp_path))['category'] is None
    with pytest.raises(BadImage, match=r'0/0: is not there: the row has no image'):
        HuggingFaceDataset(tmp_path, image='gone').read(0)
    for settings, words in (
        ({'image': 'n'}, 'no column of images'),
        ({'text': 'words'}, 'no column words: it has TEXT, gone'),
    ):
        with pytest.raises(ConfigError, match=words):
            len(HuggingFaceDataset(tmp_path, **settings))  # type: ignore[arg-type]
    with pytest.raises(UserError, match="is 'y', which is no class number"):
        first(HuggingFaceDataset(tmp_path, label='word'))
    pq.write_table(pa.table({'URL': ['http://x'], 'TEXT': ['x']}), tmp_path / '0.parquet')
    with pytest.raises(ConfigError, match='has no column of images') as error:
        len(HuggingFaceDataset(tmp_path))
    assert 'img2dataset' in error.value.hint


def test_two_datasets_in_one_folder_are_refused(tmp_path: Path) -> None:
    for name in ('one', 'two'):
        save(tmp_path / name / 'x.arrow', 1)
    with pytest.raises(ConfigError, match='holds 2 datasets: one, two'):
        len(HuggingFaceDataset(tmp_path))
    save(tmp_path / 'p/0.parquet', 1)
    save(tmp_path / 'p/1.parquet', 1, more=[1])
    with pytest.raises(ConfigError, match=r'1\.parquet has other columns than'):
        len(HuggingFaceDataset(tmp_path / 'p'))


@pytest.mark.parametrize('suffix', ['parquet', 'arrow'])
def test_damaged_files_never_give_a_wrong_image(tmp_path: Path, suffix: str) -> None:
    """A PNG has checksums, so a changed byte is found here, in the page, or in the description of the file."""
    path = save(tmp_path / f'w/0.{suffix}', 6)
    whole, generator = path.read_bytes(), np.random.default_rng(0)
    expected = [HuggingFaceDataset(tmp_path / 'w', label=None).read(n).tobytes() for n in range(6)]
    for _ in range(60):
        data = bytearray(whole)
        data[int(generator.integers(len(data)))] ^= 1 << int(generator.integers(8))
        path.write_bytes(data[: int(generator.integers(len(data)))] if generator.random() < 0.2 else data)
        dataset = HuggingFaceDataset(tmp_path / 'w', label=None)
        try:
            assert [dataset.read(n).tobytes() for n in range(len(dataset))] in (expected, expected[: len(dataset)])
        except (ConfigError, BadImage) as error:
            assert f'{tmp_path}/w' in str(error)  # noqa: PT017


@pytest.mark.parametrize('suffix', ['arrow', 'parquet'])
def test_a_pipe_does_not_block(tmp_path: Path, suffix: str) -> None:
    os.mkfifo(tmp_path / f'train.{suffix}')
    with pytest.raises(UserError, match='not a regular file'):
        len(HuggingFaceDataset(tmp_path))


def test_satin_is_found_by_the_names_of_its_subsets(tmp_path: Path) -> None:
    for number, name in enumerate(SUBSETS):
        folder = {0: f'jonathan-roberts1___{name}', 1: f'datasets--jonathan-roberts1--{name}', 2: f'satin/{name.lower()}'}
        save(tmp_path / folder.get(number, name) / 'deep/x-train.arrow', 20 if number else 11)
    train, validation = (SATINDataset(tmp_path, split) for split in ('train', 'validation'))
    assert (len(train), len(validation)) == (18 * 18 + 10, 18 * 2 + 1)
    assert ids(validation)[:3] == ['NASC-TG2/deep/x-train/0', 'WHU-RS19/deep/x-train/0', 'WHU-RS19/deep/x-train/10']
    assert set(ids(train)).isdisjoint(ids(validation)) and SATINDataset(tmp_path, 'val').split == 'validation'
    assert (train.categories, first(train)['image'].shape, train.name) == (None, (4, 6, 3), 'satin')
    for name in SUBSETS[3:5]:
        (tmp_path / name).rename(tmp_path / f'no{name}')
    with pytest.raises(ConfigError, match=r'2 of the 19 subsets of SATIN are not in .*: RS_C11, SIRI-WHU; it holds: '):
        len(SATINDataset(tmp_path))
    assert len(SATINDataset(tmp_path, subsets=SUBSETS[5:])) == 14 * 18
    with pytest.raises(ConfigError, match='none does not exist'):
        len(SATINDataset(tmp_path / 'none'))
    for subset in SUBSETS[:3]:  # found in its folder, whatever is asked for first
        alone = [SATINDataset(tmp_path, 'train', subsets=(subset,)) for _ in range(4)]
        assert (alone[0].categories, alone[1].label_names) == (None, None)
        assert alone[2].fingerprint() == alone[0].fingerprint() and len(alone[3]) == len(alone[0])
        assert ids(alone[0]) == ids(alone[1]) == [name for name in ids(train) if name.startswith(f'{subset}/')]


def test_laion_is_read_in_each_of_its_layouts(tmp_path: Path) -> None:
    write(tmp_path / 'tars/00000.tar', samples(0, 6))
    pq.write_table(pa.table({'URL': ['x']}), tmp_path / 'tars/00000.parquet')  # img2dataset's notes beside its tars
    (tmp_path / 'rows').mkdir()
    rows = pa.table({'jpg': [png(n) for n in range(6)], 'caption': [f'word {n}' for n in range(6)], 'key': list('012345')})
    pq.write_table(rows, tmp_path / 'rows/0.parquet')
    lines = []
    for n in range(6):
        file = tmp_path / f'files/v2_6.5plus/{n}.png'
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(png(n))
        lines.append(f'{n}.png\tword\t{n}\t6.7\thttp://x/{n}\n' if n % 2 else f'{n}.png\tword {n}\t6.7\thttp://x/{n}\n')
    (tmp_path / 'files/annotations').mkdir()
    (tmp_path / 'files/annotations/v2_6.5plus.tsv').write_text(''.join(lines))
    for layout in ('tars', 'rows', 'files'):
        config = PyConfig.load('configs/datasets/interface.py', dataset='laion_aesthetics', data_root=str(tmp_path / layout))
        assert config.trainer.dataset.held_out == config.validator.dataset.held_out == 25_000
        train, validation = (
            VQDatasetRegistry.build({**config[role].dataset, 'held_out': 2, 'transform': None})
            for role in ('trainer', 'validator')
        )
        assert [int(validation.read(n).max()) for n in range(len(validation))] == [5, 4]  # the last ones, the last one first
        assert [int(train.read(n).max()) for n in range(len(train))] == [0, 1, 2, 3]
        assert first(train, 3)['text'].split() == ['word', '3']
        assert (train.name, train.split) == ('laion_aesthetics', 'train')
    (tmp_path / 'files/annotations/v2_6.5plus.tsv').write_text('../x.png\tword\t6\tx\n')
    with pytest.raises(ConfigError, match='line 1 of'):
        len(LAIONAestheticsDataset(tmp_path / 'files'))
    (tmp_path / 'empty/deep').mkdir(parents=True)
    with pytest.raises(ConfigError, match=r'neither tars nor parquet files nor annotations/.*, but: deep'):
        len(LAIONAestheticsDataset(tmp_path / 'empty'))
    with pytest.raises(ConfigError, match='does not exist'):
        len(LAIONAestheticsDataset(tmp_path / 'none'))


def test_an_image_in_a_row_can_be_bad(tmp_path: Path) -> None:
    buffer = io.BytesIO(png(1))
    table = pa.table({'image': [{'bytes': buffer.getvalue()[:40], 'path': None}, {'bytes': None, 'path': '/etc/passwd'}]})
    pq.write_table(table, tmp_path / '0.parquet')
    dataset = HuggingFaceDataset(tmp_path)
    with pytest.raises(BadImage, match=r'0/0: '):
        dataset.read(0)
    with pytest.raises(BadImage, match="names only its path '/etc/passwd'"):
        dataset.read(1)
