"""Our safetensors writer against the package's reader, and our reader against damaged files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from vq.core.errors import UserError
from vq.io import tensorfile
from vq.io.atomic import atomic_file


def write(path: Path, tensors: dict[str, Tensor] | dict[str, np.ndarray]) -> None:
    with atomic_file(path) as writer:
        tensorfile.write_tensors(writer, tensors)  # type: ignore[arg-type]


def odd_tensors() -> dict[str, Tensor]:
    base = torch.randn(7, 5)
    return {
        'plain': torch.randn(3, 1, 5),
        'bf16': torch.randn(5, 3).bfloat16(),
        'half': torch.randn(3).half(),
        'double': torch.randn(2, dtype=torch.float64),
        'bool': torch.tensor([True, False, True]),
        'byte': torch.arange(5, dtype=torch.uint8),
        'short': torch.tensor([-1, 2], dtype=torch.int16),
        'unsigned': torch.tensor([65535, 0], dtype=torch.uint16),
        'long': torch.tensor([[-(2**62)]]),
        'complex': torch.randn(3, dtype=torch.complex64),
        'conjugate': torch.randn(3, dtype=torch.complex64).conj(),
        'float8': torch.randn(5).to(torch.float8_e4m3fn),
        'scalar': torch.tensor(3.5),
        'step': torch.tensor(7),
        'empty': torch.zeros(0, 4),
        'also_empty': torch.zeros(3, 0, dtype=torch.int64),
        'transposed': base.T,
        'strided': base[::2, 1:4],
        'channels_last': torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        'expanded': torch.tensor([1.0]).expand(4, 3),
        'ünïcode "name"': torch.randn(1),
    }


def bits(value: Tensor) -> bytes:
    return value.detach().resolve_conj().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def test_the_package_reads_what_we_write(tmp_path: Path) -> None:
    tensors = odd_tensors()
    write(tmp_path / 'x', tensors)
    for found in (load_file(tmp_path / 'x'), tensorfile.read_tensors(tmp_path / 'x')):
        assert found.keys() == tensors.keys()
        for name, value in tensors.items():
            assert found[name].dtype == value.dtype
            assert found[name].shape == value.shape
            assert bits(found[name]) == bits(value), name


def test_parameters_need_no_detaching_and_arrays_are_read_by_torch(tmp_path: Path) -> None:
    write(tmp_path / 'x', {'p': torch.nn.Parameter(torch.ones(3))})
    assert torch.equal(load_file(tmp_path / 'x')['p'], torch.ones(3))
    arrays = {'a': np.arange(6, dtype='>i4').reshape(2, 3).T, 'b': np.array(7, np.uint16), 'c': np.zeros((0, 3), np.float16)}
    write(tmp_path / 'y', arrays)
    found = load_file(tmp_path / 'y')
    assert found['a'].tolist() == [[0, 3], [1, 4], [2, 5]]
    assert found['b'].item() == 7
    assert found['c'].shape == (0, 3)


def test_tied_tensors_are_stored_once_and_tied_again(tmp_path: Path) -> None:
    weight = torch.randn(50, 40)
    tensors = {'embedding': weight, 'head': weight, 'half': weight[:25], 'same_values': weight.clone()}
    write(tmp_path / 'x', tensors)
    assert (tmp_path / 'x').stat().st_size < 4 * (2000 + 1000 + 2000) + 1000
    found = tensorfile.read_tensors(tmp_path / 'x')
    assert found['embedding'].data_ptr() == found['head'].data_ptr()
    assert found['same_values'].data_ptr() != found['head'].data_ptr()
    for name, value in tensors.items():
        assert torch.equal(found[name], value)


def test_the_same_tensors_give_the_same_bytes_in_any_order(tmp_path: Path) -> None:
    tensors = {'b': torch.arange(3), 'a': torch.ones(2, dtype=torch.uint8), 'c': torch.ones(5)}
    write(tmp_path / 'x', tensors)
    write(tmp_path / 'y', dict(reversed(tensors.items())))
    assert (tmp_path / 'x').read_bytes() == (tmp_path / 'y').read_bytes()


@pytest.mark.parametrize(
    ('value', 'message'),
    [
        (torch.zeros(3, device='meta'), 'no plain memory'),
        (torch.zeros(3, 3).to_sparse(), 'no plain memory'),
        (torch.zeros(3, dtype=torch.complex128), 'has no such type'),
    ],
)
def test_what_the_format_cannot_hold_is_named(tmp_path: Path, value: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=f"'codes.weight'.*{message}"):
        write(tmp_path / 'x', {'codes.weight': value})
    assert list(tmp_path.iterdir()) == []


def test_arrays_are_views_of_one_map_and_aligned(tmp_path: Path) -> None:
    arrays = {'bytes': np.arange(3, dtype=np.uint8), 'tokens': np.arange(5, dtype=np.uint16), 'ids': np.arange(7)}
    write(tmp_path / 'x', arrays)
    found, _ = tensorfile.map_arrays(tmp_path / 'x')
    for name, value in arrays.items():
        assert np.array_equal(found[name], value)
        assert found[name].ctypes.data % value.itemsize == 0
        assert not found[name].flags.writeable
        base: object = found[name]
        while isinstance(base, np.ndarray) and base.base is not None:
            base = base.base
        assert type(base).__name__ == 'mmap'


def test_arrays_of_another_writer_are_mapped(tmp_path: Path) -> None:
    save_file({'a': torch.arange(6).reshape(2, 3), 'b': torch.ones(3, dtype=torch.uint8)}, tmp_path / 'x', {'note': 'n'})
    found, header = tensorfile.map_arrays(tmp_path / 'x')
    assert found['a'].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert header.metadata == {'note': 'n'}


def edited(change: Callable[[dict], object]) -> Callable[[bytes], bytes]:
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
        lambda data: b'',
        lambda data: data[:7],
        lambda data: data[:-1],
        lambda data: data + b'x',
        lambda data: (1 << 62).to_bytes(8, 'little') + data[8:],
        lambda data: data[:8] + b'[' + data[9:],
        edited(lambda header: header['a'].update(dtype='X9')),
        edited(lambda header: header['a'].update(dtype=['F32'])),
        edited(lambda header: header['a'].update(shape=[-1, -3])),
        edited(lambda header: header['a'].update(shape=[True, 6])),
        edited(lambda header: header['a'].update(shape=[7])),
        edited(lambda header: header['a'].update(shape='ab')),
        edited(lambda header: header['a'].update(data_offsets=[0, 24, 48])),
        edited(lambda header: header['a'].update(data_offsets=header['b']['data_offsets'])),
        edited(lambda header: header['a'].update(data_offsets=[0, 10**12])),
        edited(lambda header: header.pop('a')),
        edited(lambda header: header.update(__metadata__={'x': 1})),
        edited(lambda header: header.update(a=3)),
    ],
)
def test_damage_is_found_before_anything_is_used(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    write(tmp_path / 'x', {'a': torch.zeros(6), 'b': torch.zeros(3)})
    (tmp_path / 'x').write_bytes(damage((tmp_path / 'x').read_bytes()))
    for read in (tensorfile.read_header, tensorfile.map_arrays, tensorfile.read_tensors):
        with pytest.raises(UserError, match='x is damaged: '):
            read(tmp_path / 'x')


def test_a_tie_to_nothing_is_damage(tmp_path: Path) -> None:
    save_file({'a': torch.zeros(1)}, tmp_path / 'x', {'vq.tied': '{"b": "c"}'})
    with pytest.raises(UserError, match='damaged'):
        tensorfile.read_tensors(tmp_path / 'x')
    assert safetensors.__version__
