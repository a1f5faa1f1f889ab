"""Shards: the same bytes from any number of ranks, every sample once, resumable, read without being loaded."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import pickle
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from safetensors.torch import load_file as load_torch

from tests.io.killing import Killer
from tests.io.samples import hidden
from vq.core import collectives
from vq.core.errors import RunFailure, UserError
from vq.io.shards import ShardRange, ShardSet, ShardWriter

PRODUCER = {
    'tokenizer_config_hash': 'abc',
    'weights_hash': 'def',
    'codebook_size': 256,
    'token_shape': (2, 3),
    'dataset': {'name': 'digits', 'split': 'train'},
    'variants': ['center', 'flip'],
}
TOTAL = 97  # odd, and the last shard is short


def tokens_of(index: int) -> np.ndarray:
    """(variants, 2, 3), known without any file."""
    return (np.arange(12).reshape(2, 2, 3) + 7 * index) % 256


def write_shard(writer: ShardWriter, part: ShardRange, skip: tuple[int, ...] = ()) -> None:
    rows = [index for index in range(part.start, part.stop) if index not in skip]
    columns = {
        'tokens': np.array([tokens_of(index) for index in rows]).reshape(-1, 2, 2, 3),
        'category': torch.tensor([index % 10 for index in rows], dtype=torch.int64),
    }
    writer.write(
        part,
        columns,
        [f'digits/ü{index}' for index in rows],
        [f'digits/ü{i}' for i in skip if i in range(part.start, part.stop)],
    )


def make(folder: Path, world: int = 1, total: int = TOTAL, size: int = 4, **settings: Any) -> ShardWriter:
    writer = ShardWriter(folder, 'tokens', total, size, {**PRODUCER, **settings})
    for rank in reversed(range(world)):
        for part in writer.pending(rank, world):
            write_shard(writer, part)
    return writer


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def check_all(found: ShardSet) -> None:
    assert len(found) == TOTAL
    for index in range(TOTAL):
        row = found[index]
        assert row.keys() == {'tokens', 'category', 'id'}
        assert row['tokens'].dtype == np.uint16
        assert np.array_equal(row['tokens'], tokens_of(index))
        assert row['category'] == index % 10
        assert row['id'] == f'digits/ü{index}'


# writing


@pytest.mark.slow
def test_any_number_of_ranks_writes_the_same_bytes(tmp_path: Path) -> None:
    for world in (1, 2, 3):
        make(tmp_path / str(world), world).finish()
    first = digests(tmp_path / '1')
    assert len(first) == 26  # 25 shards: more than 10 for each of 2 ranks
    assert list(first)[:2] == ['manifest.json', 'shard-00000-of-00025.safetensors']
    assert digests(tmp_path / '2') == first
    assert digests(tmp_path / '3') == first
    check_all(ShardSet(tmp_path / '3', verify=True))


@pytest.mark.parametrize(('total', 'size', 'world'), [(1, 4, 3), (97, 4, 3), (96, 4, 2), (5, 5, 2), (41, 1, 3)])
def test_ranks_cover_every_sample_once(tmp_path: Path, total: int, size: int, world: int) -> None:
    writer = ShardWriter(tmp_path, 'tokens', total, size, PRODUCER)
    covered = [
        index for rank in range(world) for part in writer.pending(rank, world) for index in range(part.start, part.stop)
    ]
    assert sorted(covered) == list(range(total))
    assert all(part.index % world == rank for rank in range(world) for part in writer.pending(rank, world))


def test_the_rank_comes_from_the_run(tmp_path: Path) -> None:
    class Second(collectives.SingleProcess):
        rank = 1
        size = 2

    collectives.install(Second())
    writer = ShardWriter(tmp_path, 'tokens', 20, 4, PRODUCER)
    assert [part.index for part in writer.pending()] == [1, 3]
    assert os.listdir(tmp_path) == []  # the manifest is the first rank's


def test_files_are_plain_safetensors(tmp_path: Path) -> None:
    make(tmp_path).finish()
    found = load_file(tmp_path / 'shard-00024-of-00025.safetensors')
    assert sorted(found) == ['category', 'id.bytes', 'id.offsets', 'tokens']
    assert found['tokens'].tolist() == [tokens_of(96).tolist()]
    assert found['id.bytes'].tobytes().decode() == 'digits/ü96'


def test_the_manifest_tells_all(tmp_path: Path) -> None:
    make(tmp_path).finish()
    manifest = json.loads((tmp_path / 'manifest.json').read_text())
    assert manifest['complete'] is True
    assert (manifest['format_version'], manifest['kind'], manifest['count'], manifest['skipped']) == (1, 'tokens', TOTAL, [])
    assert manifest['producer'] == json.loads(json.dumps(PRODUCER))
    assert manifest['columns']['tokens'] == {'dtype': 'uint16', 'shape': [2, 2, 3]}
    for entry in manifest['shards']:
        data = (tmp_path / entry['name']).read_bytes()
        assert (entry['size'], entry['sha256']) == (len(data), hashlib.sha256(data).hexdigest())
    assert [entry['count'] for entry in manifest['shards']] == [4] * 24 + [1]


def test_a_large_codebook_takes_32_bits(tmp_path: Path) -> None:
    for size, kind, top in ((65536, np.uint16, 65535), (65537, np.uint32, 65536), (2**32, np.uint32, 2**32 - 1)):
        folder = tmp_path / str(size)
        writer = ShardWriter(folder, 'tokens', 2, 2, {}, codebook_size=size)
        writer.write(writer.ranges()[0], {'tokens': np.array([[[0]], [[top]]])}, ['a', 'b'])
        writer.finish()
        assert ShardSet(folder)[1]['tokens'].dtype == kind
        assert ShardSet(folder)[1]['tokens'].tolist() == [[top]]


def test_other_kinds_keep_their_types(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path, 'latents', 3, 2, {'scale': 0.5})
    columns = [
        {'mean': torch.randn(n, 4, 3, 5).half(), 'moments': np.zeros((n, 2), np.float32), 'jpeg': [b'', b'ab\x00'][:n]}
        for n in (2, 1)
    ]
    for part, given in zip(writer.ranges(), columns, strict=True):
        writer.write(part, given, [f'{part.index}.{row}' for row in range(len(part))])
    writer.finish()
    found = ShardSet(tmp_path, verify=True)
    assert found[2]['mean'].dtype == np.float16
    assert np.array_equal(found[1]['mean'], columns[0]['mean'][1].numpy())  # type: ignore[index]
    assert (found[0]['jpeg'], found[1]['jpeg'], found[2]['jpeg']) == (b'', b'ab\x00', b'')
    assert found.column('jpeg')[[1, 2]] == [b'ab\x00', b'']


def test_bfloat16_is_written_as_it_is_and_read_as_float32(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path, 'latents', 5, 3, {'scale': 0.5})
    values = torch.randn(5, 2, 3).bfloat16()
    for part in writer.ranges():
        writer.write(part, {'mean': values[part.start : part.stop]}, [f'{n}' for n in range(part.start, part.stop)])
    assert writer.finish().columns['mean'] == {'dtype': 'bfloat16', 'shape': [2, 3]}
    found, wanted = ShardSet(tmp_path, verify=True), values.float().numpy()
    assert load_torch(tmp_path / 'shard-00000-of-00002.safetensors')['mean'].dtype == torch.bfloat16
    assert np.array_equal(np.stack([row['mean'] for row in found]), wanted)
    assert np.array_equal(found.column('mean')[[4, 0, 3]], wanted[[4, 0, 3]])


@pytest.mark.parametrize(
    ('tokens', 'ids', 'message'),
    [
        (np.full((4, 2, 2, 3), 256), 'abcd', 'reach from 256 to 256; there are 256 codes'),
        (np.full((4, 2, 2, 3), -1), 'abcd', 'reach from -1'),
        (np.zeros((4, 2, 3, 2), int), 'abcd', 'and token_shape is'),
        (np.zeros((4, 1, 2, 3), int), 'abcd', '1 variants'),
        (np.zeros((3, 2, 2, 3), int), 'abcd', "'tokens' has 3 rows"),
        (np.zeros((3, 2, 2, 3), int), 'abc', 'has 4 samples, not 3'),
        (np.zeros((4, 2, 2, 3), int), 'abca', 'ids are not unique'),
    ],
)
def test_wrong_rows_are_refused_at_once(tmp_path: Path, tokens: np.ndarray, ids: str, message: str) -> None:
    writer = ShardWriter(tmp_path, 'tokens', 8, 4, PRODUCER)
    with pytest.raises((ValueError, UserError), match=message):
        writer.write(writer.ranges()[0], {'tokens': tokens}, list(ids))
    assert os.listdir(tmp_path) == ['manifest.json']


def test_skipped_samples_are_listed_not_lost(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path, 'tokens', TOTAL, 4, PRODUCER)
    for part in writer.pending():
        write_shard(writer, part, skip=(3, 96))  # the last shard is left with no row at all
    assert writer.pending() == []
    manifest = writer.finish()
    assert manifest.skipped == ['digits/ü3', 'digits/ü96']
    found = ShardSet(tmp_path, verify=True)
    assert len(found) == TOTAL - 2
    assert found[3]['id'] == 'digits/ü4'
    assert found[-1]['id'] == 'digits/ü95'


def test_an_id_in_two_shards_is_refused(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path, 'images', 4, 2, {})
    for part in writer.ranges():
        writer.write(part, {'image': np.zeros((2, 3, 3, 3), np.uint8)}, ['same', f'other{part.index}'])
    with pytest.raises(UserError, match="the id 'same' occurs twice"):
        writer.finish()


def test_shards_of_other_columns_are_refused(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path, 'images', 4, 2, {})
    for part, size in zip(writer.ranges(), (3, 5), strict=True):
        writer.write(part, {'image': np.zeros((2, size), np.uint8)}, [f'{part.start}', f'{part.start + 1}'])
    with pytest.raises(UserError, match=r'shard-00001-of-00002.safetensors has other columns'):
        writer.finish()


def test_an_empty_dataset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match='the dataset is empty'):
        ShardWriter(tmp_path, 'tokens', 0, 4, PRODUCER)


# going on


def test_a_start_goes_on_where_the_last_one_stopped(tmp_path: Path) -> None:
    make(tmp_path / 'whole').finish()
    writer = ShardWriter(tmp_path / 'parts', 'tokens', TOTAL, 4, PRODUCER)
    for part in writer.pending(0, 2)[:5]:
        write_shard(writer, part)
    with pytest.raises(RunFailure, match='20 of 25 shards are missing: shard-00001-of-00025'):
        writer.finish()
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / 'parts').glob('shard*')}
    again = ShardWriter(tmp_path / 'parts', 'tokens', TOTAL, 4, PRODUCER)  # now with three ranks
    assert sorted(part.index for rank in range(3) for part in again.pending(rank, 3)) == [1, 3, 5, 7, 9, *range(10, 25)]
    make(tmp_path / 'parts', world=3).finish()
    assert digests(tmp_path / 'parts') == digests(tmp_path / 'whole')
    assert before.items() <= {path.name: path.stat().st_mtime_ns for path in (tmp_path / 'parts').glob('shard*')}.items()


def test_a_shard_that_is_not_whole_is_written_again(tmp_path: Path) -> None:
    writer = make(tmp_path)
    expected = digests(tmp_path)
    victim = writer.path_of(writer.ranges()[7])
    for damage in (b'', victim.read_bytes()[:-3], (tmp_path / 'shard-00008-of-00025.safetensors').read_bytes()):
        victim.write_bytes(damage)
        assert [part.index for part in writer.pending()] == [7]
    write_shard(writer, writer.ranges()[7])
    assert digests(tmp_path) == expected


def make_whole(folder: Path) -> None:
    make(folder, size=49).finish()


def test_a_writer_killed_anywhere_leaves_what_the_next_finishes(
    tmp_path: Path, killer: Killer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, 'fsync', lambda file: None)
    make_whole(tmp_path / 'whole')
    folder = tmp_path / 'parts'
    for count in itertools.count():
        shutil.rmtree(folder, ignore_errors=True)
        survived = killer.run(partial(make_whole, folder), count)
        if not survived and folder.is_dir() and (folder / 'manifest.json').is_file():
            if json.loads((folder / 'manifest.json').read_text())['complete']:
                ShardSet(folder, verify=True)
            else:
                with pytest.raises(UserError, match=r'is not complete: [012] of 2 shards are there'):
                    ShardSet(folder)
        make_whole(folder)
        assert not hidden(folder)
        assert digests(folder) == digests(tmp_path / 'whole')
        if survived:
            break
    assert count > 15


@pytest.mark.parametrize(
    ('change', 'field'),
    [
        ({'weights_hash': 'xyz'}, "'weights_hash' is 'def' there and 'xyz' here"),
        ({'dataset': {'name': 'digits', 'split': 'val'}}, "'dataset.split' is 'train' there and 'val' here"),
        ({'codebook_size': 512}, "'codebook_size' is 256 there and 512 here"),
        ({'transform': 'weak'}, "'transform' is missing there and 'weak' here"),
    ],
)
def test_the_folder_of_another_tokenizer_is_refused(tmp_path: Path, change: dict[str, Any], field: str) -> None:
    writer = make(tmp_path)
    for _ in range(2):  # while it is incomplete, and after
        with pytest.raises(UserError, match=f'holds tokens of another tokenizer: {field}') as caught:
            ShardWriter(tmp_path, 'tokens', TOTAL, 4, {**PRODUCER, **change})
        assert caught.value.exit_code == 2
        writer.finish()
    fewer = {key: value for key, value in PRODUCER.items() if key != 'weights_hash'}
    with pytest.raises(UserError, match="'weights_hash' is 'def' there and missing here"):
        ShardWriter(tmp_path, 'tokens', TOTAL, 4, fewer)


def test_other_settings_are_refused(tmp_path: Path) -> None:
    make(tmp_path)
    for kind, total, size, named in (('tokens', 98, 4, 'total'), ('tokens', 97, 5, 'shard_size'), ('images', 97, 4, 'kind')):
        with pytest.raises(UserError, match=f"holds another set: '{named}' is"):
            ShardWriter(tmp_path, kind, total, size, PRODUCER)


# reading


@pytest.fixture(scope='module')
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('tokens')
    make(folder).finish()
    return folder


def test_rows_columns_and_ids(made: Path) -> None:
    found = ShardSet(made)
    check_all(found)
    assert found.ids() == [f'digits/ü{index}' for index in range(TOTAL)]
    assert found[-1]['id'] == 'digits/ü96'
    for index in (TOTAL, -TOTAL - 1):
        with pytest.raises(IndexError):
            found[index]
    assert [row['id'] for row in found][:3] == found.ids()[:3]  # a sequence ends by itself
    assert found.starts == [*range(0, 97, 4), 97]


def test_columns_by_index_slice_list_and_mask(made: Path) -> None:
    column = ShardSet(made).column('tokens')
    expected = np.array([tokens_of(index) for index in range(TOTAL)])
    assert column.shape == expected.shape
    assert column.dtype == np.uint16
    assert len(column) == TOTAL
    assert np.array_equal(column[50], expected[50])
    for index in (slice(None), slice(3, 90, 7), slice(90, 3, -7), slice(5, 5), [96, 0, 3, 3, -1], np.arange(TOTAL) % 3 == 0):
        assert np.array_equal(column[index], expected[index]), index
    with pytest.raises(IndexError):
        column[[0, TOTAL]]
    category = ShardSet(made).column('category')[:]
    assert category.dtype == np.int64
    assert category.tolist() == [index % 10 for index in range(TOTAL)]
    assert ShardSet(made).column('id')[2:4] == ['digits/ü2'.encode(), 'digits/ü3'.encode()]
    with pytest.raises(UserError, match="no column 'token'") as caught:
        ShardSet(made).column('token')
    assert 'category, id, tokens' in caught.value.hint


def test_nothing_is_read_before_it_is_looked_at(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []
    real = np.memmap.__new__

    def watch(kind: type, path: Path, *rest: Any, **settings: Any) -> Any:
        opened.append(Path(path).name)
        return real(kind, path, *rest, **settings)

    monkeypatch.setattr(np.memmap, '__new__', watch)
    found = ShardSet(made)
    assert opened == []
    row = found[5]['tokens']
    assert opened == ['shard-00001-of-00025.safetensors']
    base: Any = row
    while isinstance(base, np.ndarray) and base.base is not None:
        base = base.base
    assert type(base).__name__ == 'mmap'
    assert not row.flags.writeable


def test_few_files_stay_open(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('vq.io.shard_set._OPEN', 3)
    found = ShardSet(made)
    check_all(found)
    assert len(found._open) == 3


def test_workers_get_a_set_without_its_maps(made: Path) -> None:
    found = ShardSet(made)
    check_all(found)
    copy = pickle.loads(pickle.dumps(found))
    assert not copy._open
    check_all(copy)


def test_expectations_are_checked(made: Path) -> None:
    ShardSet(made, expect={'weights_hash': 'def', 'token_shape': (2, 3), 'dataset': {'name': 'digits'}})
    with pytest.raises(UserError, match="tokens of another tokenizer: 'tokenizer_config_hash' is 'abc' there and 'q' here"):
        ShardSet(made, expect={'tokenizer_config_hash': 'q'})


def test_an_incomplete_set_says_what_to_do(tmp_path: Path) -> None:
    make(tmp_path, world=1)
    (tmp_path / 'shard-00003-of-00025.safetensors').unlink()
    with pytest.raises(UserError, match='not complete: 24 of 25 shards are there') as caught:
        ShardSet(tmp_path)
    assert 'once more' in caught.value.hint
    with pytest.raises(UserError, match='no set of shards'):
        ShardSet(tmp_path / 'none')


@pytest.fixture
def copied(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / 'copy')
    return tmp_path / 'copy'


def test_a_missing_or_cut_shard_is_named(copied: Path) -> None:
    victim = copied / 'shard-00003-of-00025.safetensors'
    data = victim.read_bytes()
    victim.write_bytes(data[:-1])
    with pytest.raises(UserError, match=rf'shard-00003-of-00025.safetensors is damaged: it has {len(data) - 1} bytes'):
        ShardSet(copied)
    victim.unlink()
    with pytest.raises(UserError, match=r'shard-00003-of-00025.safetensors is damaged: it is missing'):
        ShardSet(copied)


def test_verify_finds_a_flipped_bit(copied: Path) -> None:
    victim = copied / 'shard-00003-of-00025.safetensors'
    data = bytearray(victim.read_bytes())
    data[-1] ^= 1
    victim.write_bytes(data)
    found = ShardSet(copied)
    with pytest.raises(UserError, match=r'shard-00003-of-00025.safetensors is damaged: its SHA-256'):
        found.verify()
    with pytest.raises(UserError, match='SHA-256'):
        ShardSet(copied, verify=True)


def test_verify_finds_tokens_beyond_the_codebook(copied: Path) -> None:
    manifest = json.loads((copied / 'manifest.json').read_text())
    manifest['producer']['codebook_size'] = 100
    (copied / 'manifest.json').write_text(json.dumps(manifest))
    with pytest.raises(UserError, match='and the codebook has 100 codes'):
        ShardSet(copied, verify=True)


@pytest.mark.parametrize(
    'change',
    [
        {'shards': []},
        {'total': 98, 'shard_size': 2},
        {'shard_size': 0},
        {'total': 'many'},
        {'producer': []},
        {'columns': None},
        {'shards': [{'name': '../../elsewhere', 'count': 4, 'size': 1, 'sha256': '', 'skipped': []}]},
        {'shards': [{'name': 'x'}]},
        {'format_version': 2},
        {'shards': 3},
    ],
)
def test_a_manifest_that_cannot_be_true_is_refused(copied: Path, change: dict[str, Any]) -> None:
    manifest = json.loads((copied / 'manifest.json').read_text())
    (copied / 'manifest.json').write_text(json.dumps({**manifest, **change}))
    with pytest.raises(UserError, match=r'manifest.json'):
        ShardSet(copied)
    for text in ('', '[]', '{"format_version": 1}'):
        (copied / 'manifest.json').write_text(text)
        with pytest.raises(UserError, match=r'manifest.json cannot be read'):
            ShardSet(copied)


def test_offsets_that_point_elsewhere_are_refused(copied: Path) -> None:
    victim = copied / 'shard-00003-of-00025.safetensors'
    data = bytearray(victim.read_bytes())
    offsets = np.array(load_file(victim)['id.offsets'])
    place = bytes(data).index(offsets.tobytes())
    for wrong in ([0, 10**9, 22, 33, 44], [0, 22, 11, 33, 44], [1, 11, 22, 33, 44], [0, 11, 22, 33, 45]):
        data[place : place + 40] = np.array(wrong).tobytes()
        victim.write_bytes(data)
        with pytest.raises(UserError, match=r"the rows of 'id.offsets' do not add up"):
            ShardSet(copied)[12]
