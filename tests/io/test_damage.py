"""Damage that used to be accepted: zip checksums, digests of converted files, recorded hashes, values that are no weights."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tests.io.samples import sample
from vq.core.errors import UserError
from vq.io import checkpoints, seal, tensorfile
from vq.io.atomic import atomic_file
from vq.io.digest import read_digest
from vq.io.plain import read_torch
from vq.io.runs import find
from vq.io.values import check_values
from vq.io.weights import load_model_from, read_weights


def flip(path: Path, place: int, bit: int = 0x10) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= bit
    path.write_bytes(data)


# .pth and .pt


def place_of(path: Path, content: bytes) -> int:
    return path.read_bytes().index(content)


@pytest.mark.parametrize('suffix', ['pth', 'pt', 'safetensors'])
@pytest.mark.parametrize('mmap', [False, True])
def test_a_flipped_bit_in_a_torch_file_is_damage(tmp_path: Path, suffix: str, mmap: bool) -> None:
    weight = torch.randn(41, 7)
    path = tmp_path / f'x.{suffix}'
    torch.save({'weight': weight, 'half': torch.randn(3).bfloat16()}, path)
    assert torch.equal(read_torch(path, mmap)['weight'], weight)
    flip(path, place_of(path, weight.numpy().tobytes()) + 5)
    assert not torch.equal(torch.load(path, weights_only=True)['weight'] if suffix != 'safetensors' else weight + 1, weight)
    for read in (lambda: read_torch(path, mmap), lambda: read_weights(path)):
        with pytest.raises(UserError, match=rf"x\.{suffix} is damaged: Bad CRC-32 for file '.*data/0'"):
            read()


def test_torch_files_without_checksums_are_read(tmp_path: Path) -> None:
    """Written under set_crc32_options(False), and the older format, which has none."""
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({'a': torch.arange(5.0)}, tmp_path / 'x.pt')
    finally:
        torch.serialization.set_crc32_options(before)
    torch.save({'a': torch.arange(5.0)}, tmp_path / 'y.pt', _use_new_zipfile_serialization=False)
    for name in 'xy':
        assert read_torch(tmp_path / f'{name}.pt')['a'].tolist() == [0, 1, 2, 3, 4]


# digests in safetensors


TENSORS = {'b.weight': torch.randn(5, 3), 'a': torch.arange(7), 'none': torch.zeros(0, 4), 'half': torch.randn(3).bfloat16()}
NOTES = {'vq.tokenizer': '{"width": 8}', 'vq.image_size': '64'}


def write(path: Path, sealed: bool = True, **more: Tensor) -> Path:
    with atomic_file(path) as writer:
        tensorfile.write_tensors(writer, {**TENSORS, **more}, NOTES, sealed=sealed)
    return path


def test_a_sealed_file_is_plain_safetensors(tmp_path: Path) -> None:
    path = write(tmp_path / 'x', tied=TENSORS['b.weight'])
    found = load_file(path)
    assert all(torch.equal(found[name], value) for name, value in TENSORS.items())
    with safe_open(path, 'pt') as file:
        notes = file.metadata()
    assert notes.items() >= NOTES.items()
    assert len(notes[seal.KEY]) == 64
    again = tensorfile.read_tensors(path)
    assert again['tied'].data_ptr() == again['b.weight'].data_ptr()
    assert write(tmp_path / 'y', tied=TENSORS['b.weight']).read_bytes() == path.read_bytes()


def changed_header(change: Callable[[dict[str, Any]], object]) -> Callable[[bytes], bytes]:
    def edit(data: bytes) -> bytes:
        size = int.from_bytes(data[:8], 'little')
        header = json.loads(data[8 : 8 + size])
        change(header)
        text = json.dumps(header).encode()
        return len(text).to_bytes(8, 'little') + text + data[8 + size :]

    return edit


@pytest.mark.parametrize(
    'damage',
    [
        lambda data: data[:-1] + bytes([data[-1] ^ 1]),
        lambda data: data.replace(TENSORS['b.weight'].numpy().tobytes(), TENSORS['b.weight'].neg().numpy().tobytes()),
        lambda data: data.replace(b'b.weight', b'c.weight'),
        lambda data: data.replace(b'[5,3]', b'[3,5]'),
        changed_header(lambda header: header['__metadata__'].update({'vq.tokenizer': '{"width": 9}'})),
        changed_header(lambda header: header['__metadata__'].update({seal.KEY: '0' * 64})),
        changed_header(lambda header: header['half'].update(dtype='F16')),
    ],
)
def test_damage_of_a_file_with_its_own_digest_is_named(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    path = write(tmp_path / 'x.safetensors')
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match=r"x\.safetensors is damaged: the SHA-256 .*'vq\.sha256'") as caught:
        read_weights(path)
    assert caught.value.exit_code == 2


def test_files_without_a_digest_and_notes_of_others_are_no_complaint(tmp_path: Path) -> None:
    assert read_weights(write(tmp_path / 'old', sealed=False))[0].keys() == TENSORS.keys()
    save_file(TENSORS, tmp_path / 'other', {'format': 'pt'})
    assert read_weights(tmp_path / 'other')[0].keys() == TENSORS.keys()
    # another program may lay the tensors out in another order, and add notes of its own
    with safe_open(write(tmp_path / 'x'), 'pt') as file:
        notes = file.metadata()
    save_file(dict(reversed(TENSORS.items())), tmp_path / 'again', {**notes, 'format': 'pt'})
    assert read_weights(tmp_path / 'again')[0].keys() == TENSORS.keys()


# recorded hashes


@pytest.mark.parametrize('name', ['ema.safetensors', 'config.json', 'spec.json', 'meta.json'])
def test_every_recorded_hash_is_compared(tmp_path: Path, name: str) -> None:
    """By what vq.load reads of a run: weights, config, spec, hashes of frozen files."""
    run = tmp_path / 'run'
    checkpoint = sample(3, 1.0)
    checkpoint.config_text, checkpoint.spec = '{"trainer": {"x": 100}}', {'version': 1, 'kind': 'tokenizer'}
    place = checkpoints.save(run / 'checkpoints', checkpoint)
    opened = find(str(run))
    assert opened.config == {'trainer': {'x': 100}}
    assert opened.spec.kind == 'tokenizer'
    opened.check_frozen([])
    data = (place / name).read_bytes()
    at = next(index for index, byte in reversed([*enumerate(data)]) if chr(byte).isdigit() or name.startswith('ema'))
    flip(place / name, at, 1)
    opened = find(str(run))

    def look() -> None:
        _ = opened.config, opened.spec
        opened.check_frozen([])
        read_weights(opened)

    with pytest.raises(UserError, match=rf'{name} is damaged: its SHA-256 is not the one recorded'):
        look()


def test_a_file_of_a_checkpoint_given_by_its_path_is_compared(tmp_path: Path) -> None:
    place = checkpoints.save(tmp_path, sample(3, 1.0))
    assert read_weights(place / 'model.safetensors')[1].part is None
    flip(place / 'model.safetensors', -1)
    with pytest.raises(UserError, match=r'model\.safetensors is damaged: its SHA-256'):
        read_weights(place / 'model.safetensors')


def test_another_frozen_file_than_in_training_is_refused(tmp_path: Path) -> None:
    frozen, other = tmp_path / 'vgg.pth', tmp_path / 'other.pth'
    frozen.write_bytes(b'abc')
    other.write_bytes(b'xyz')
    checkpoint = sample(3, 1.0)
    checkpoint.frozen = {str(frozen): '0' * 64}
    checkpoints.save(tmp_path / 'run' / 'checkpoints', checkpoint)
    run = find(str(tmp_path / 'run'))
    run.check_frozen([other])
    with pytest.raises(UserError, match=r'was trained with another .*vgg\.pth: SHA-256 000000000000 then'):
        run.check_frozen([other, frozen])


def test_the_hash_recorded_when_a_file_was_fetched_is_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('VQ_PRETRAINED', str(tmp_path / 'pretrained'))
    path = tmp_path / 'pretrained' / 'taming' / 'x.ckpt'
    path.parent.mkdir(parents=True)
    torch.save({'a': torch.zeros(3)}, path)
    record = tmp_path / 'pretrained' / 'digests.json'
    record.write_text(json.dumps({'taming/x.ckpt': {'sha256': read_digest(path), 'date': '2026-01-02'}}))
    assert list(read_weights(path)[0]) == ['a']
    torch.save({'a': torch.ones(3)}, path)
    with pytest.raises(UserError, match=r'x\.ckpt has the SHA-256 \w{12}, and digests\.json recorded \w{12} on 2026-01-02'):
        read_weights(path)


# values


class Model(nn.Module):
    mask: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)
        self.norm = nn.BatchNorm1d(2)
        self.register_buffer('mask', torch.tensor([0.0, -torch.inf]))


def given(**changed: Tensor) -> dict[str, Tensor]:
    return {**Model().state_dict(), **{name.replace('__', '.'): value for name, value in changed.items()}}


@pytest.mark.parametrize(
    ('changed', 'message'),
    [
        ({'layer__weight': torch.full((2, 3), torch.nan)}, "'layer.weight' holds NaN"),
        ({'layer__bias': torch.tensor([1.0, torch.inf])}, "'layer.bias' holds infinite numbers"),
        ({'layer__bias': torch.tensor([1.0, torch.nan]).bfloat16()}, "'layer.bias' holds NaN"),
        ({'layer__bias': torch.tensor([1.0, torch.nan]).to(torch.float8_e4m3fn)}, "'layer.bias' holds NaN"),
        ({'mask': torch.tensor([0.0, torch.inf])}, "'mask' holds infinite numbers"),
        ({'layer__weight': torch.ones(2, 3, dtype=torch.int64)}, "'layer.weight' is int64, and the model has float32"),
        ({'layer__weight': torch.ones(2, 3, dtype=torch.bool)}, "'layer.weight' is bool, and the model has float32"),
        ({'layer__weight': torch.ones(2, 3, dtype=torch.complex64)}, "'layer.weight' is complex64, and its imaginary part"),
        ({'norm__num_batches_tracked': torch.tensor(3.5)}, "'norm.num_batches_tracked' is float32 with fractions"),
    ],
)
@pytest.mark.parametrize('write', [torch.save, save_file])
def test_values_that_are_no_weights_are_refused(
    tmp_path: Path, changed: dict[str, Tensor], message: str, write: Callable[[Any, Path], None]
) -> None:
    write(given(**changed), tmp_path / 'x')
    target = Model()
    before = {name: value.clone() for name, value in target.state_dict().items()}
    with warnings.catch_warnings():
        warnings.simplefilter('error')  # torch only warns of a dropped imaginary part
        with pytest.raises(UserError, match=rf'x holds values that are no weights: {message}') as caught:
            load_model_from(target, [tmp_path / 'x'], strict=False)
    assert caught.value.exit_code == 2
    assert all(torch.equal(value, before[name]) for name, value in target.state_dict().items())


def test_weights_of_other_precisions_are_loaded(tmp_path: Path) -> None:
    changed = {'layer__weight': torch.ones(2, 3).bfloat16(), 'layer__bias': torch.ones(2).double() * 1e30}
    save_file(given(**changed, norm__num_batches_tracked=torch.tensor(3.0)), tmp_path / 'x')
    target = Model()
    load_model_from(target, [tmp_path / 'x'])
    assert target.norm.num_batches_tracked == 3
    assert target.mask[1] == -torch.inf
    check_values({'big': torch.full((4,), 60000.0).half()}, {}, 'x')  # their sum is no half-precision number


def test_what_the_model_does_not_know_may_be_anything_but_nan() -> None:
    others = {'mask': torch.tensor([-torch.inf]), 'count': torch.tensor(3)}
    check_values(others, {}, 'x')
    check_values(others, {'mask': torch.zeros(1, device='meta')}, 'x')
    with pytest.raises(UserError, match="x holds values that are no weights: 'w' holds NaN"):
        check_values({**others, 'w': torch.tensor([torch.nan])}, {}, 'x')
