"""The safetensors format: written tensor by tensor without an extra copy, read through a memory map.

A file is the length of the header (8 bytes, little-endian), the header (JSON: name -> dtype, shape, begin and end of the
tensor's bytes), and the bytes. Our files list tied tensors in the header's metadata: names of the same tensor.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from vq.core.errors import UserError
from vq.core.reading import open_regular, parse_json
from vq.io import seal
from vq.io.writer import Writer

if TYPE_CHECKING:
    from torch import Tensor

Array = npt.NDArray[Any]

_NUMPY = {
    'F64': '<f8',
    'F32': '<f4',
    'F16': '<f2',
    'I64': '<i8',
    'I32': '<i4',
    'I16': '<i2',
    'I8': 'i1',
    'U64': '<u8',
    'U32': '<u4',
    'U16': '<u2',
    'U8': 'u1',
}
_TORCH = {
    'float64': 'F64',
    'float32': 'F32',
    'float16': 'F16',
    'bfloat16': 'BF16',
    'int64': 'I64',
    'int32': 'I32',
    'int16': 'I16',
    'int8': 'I8',
    'uint64': 'U64',
    'uint32': 'U32',
    'uint16': 'U16',
    'uint8': 'U8',
    'bool': 'BOOL',
    'complex64': 'C64',
    'float8_e4m3fn': 'F8_E4M3',
    'float8_e5m2': 'F8_E5M2',
}
_SIZES = {
    'BF16': 2,
    'BOOL': 1,
    'C64': 8,
    'F8_E4M3': 1,
    'F8_E5M2': 1,
    **{code: np.dtype(kind).itemsize for code, kind in _NUMPY.items()},
}
_TIED = 'vq.tied'  # JSON: name -> name under which the same tensor is stored
_LONGEST_HEADER = 100_000_000


@dataclasses.dataclass(frozen=True)
class Entry:
    """One tensor of a file: ``begin`` and ``end`` are byte offsets from the end of the header."""

    code: str
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclasses.dataclass(frozen=True)
class Header:
    """The header of a file, checked against the length of the file."""

    entries: dict[str, Entry]
    metadata: dict[str, str]
    start: int  # offset of the tensors' bytes


def write_tensors(
    writer: Writer, tensors: Mapping[str, Tensor | Array], metadata: Mapping[str, str] | None = None, sealed: bool = True
) -> None:
    """Write a safetensors file. Tensors are copied to the CPU one at a time; tied tensors are stored once.

    ``sealed``: with a digest in its metadata (vq/io/seal.py). This takes a second pass over the tensors, which the files of
    checkpoints are spared: their marker records the digests.
    """
    codes = {name: _code_of(name, value) for name, value in tensors.items()}
    kept, tied = _separate_tied(tensors)
    notes = dict(metadata or {})
    if tied:
        notes[_TIED] = json.dumps(tied, sort_keys=True)
    described = {name: (codes[name], tuple(map(int, value.shape))) for name, value in kept.items()}
    if sealed:
        notes[seal.KEY] = seal.digest(described, notes, lambda name: _bytes_of(kept[name]).data)
    # largest element types first: this keeps every tensor aligned
    order = sorted(kept, key=lambda name: (-_SIZES[described[name][0]], name))
    header: dict[str, Any] = {'__metadata__': dict(sorted(notes.items()))} if notes else {}
    position = 0
    for name in order:
        code, shape = described[name]
        end = position + math.prod(shape) * _SIZES[code]
        header[name] = {'dtype': code, 'shape': list(shape), 'data_offsets': [position, end]}
        position = end
    text = json.dumps(header, separators=(',', ':'), ensure_ascii=False).encode()
    text += b' ' * (-len(text) % 8)
    writer.write(len(text).to_bytes(8, 'little') + text)
    for name in order:
        data = _bytes_of(kept[name])
        if data.size:
            writer.write(data.data)


def size_of(tensors: Mapping[str, Tensor]) -> int:
    """The approximate size in bytes of a file of these tensors."""
    return sum(value.numel() * value.element_size() for value in tensors.values())


def _separate_tied(tensors: Mapping[str, Tensor | Array]) -> tuple[dict[str, Tensor | Array], dict[str, str]]:
    seen: dict[Any, str] = {}
    kept: dict[str, Tensor | Array] = {}
    tied: dict[str, str] = {}
    for name, value in tensors.items():
        if not isinstance(value, np.ndarray) and value.device.type in ('cpu', 'cuda') and value.data_ptr():
            view = (tuple(value.shape), value.stride(), value.dtype, value.is_conj(), value.is_neg())
            place = (value.device, value.data_ptr(), *view)
            if place in seen:
                tied[name] = seen[place]
                continue
            seen[place] = name
        kept[name] = value
    return kept, tied


def _code_of(name: str, value: Tensor | Array) -> str:
    if isinstance(value, np.ndarray):
        for code, kind in _NUMPY.items():
            if np.dtype(kind) == value.dtype.newbyteorder('<'):
                return code
    elif value.device.type == 'meta' or str(value.layout) != 'torch.strided' or value.is_quantized:
        raise ValueError(f"'{name}' has no plain memory to store: {value.device.type}, {value.layout}, {value.dtype}")
    else:
        kind = str(value.dtype).removeprefix('torch.')
        if kind in _TORCH:
            return _TORCH[kind]
    raise ValueError(f"'{name}' is {value.dtype}, and safetensors has no such type")


def _bytes_of(value: Tensor | Array) -> npt.NDArray[np.uint8]:
    """The elements in C order as bytes: a view if the memory is already in that order."""
    if isinstance(value, np.ndarray):
        ordered = np.ascontiguousarray(value, value.dtype.newbyteorder('<'))
        return ordered.reshape(-1).view(np.uint8)
    import torch

    plain = value.detach().cpu().resolve_conj().resolve_neg().contiguous().reshape(-1)
    return plain.view(torch.uint8).numpy()


def _opened(path: Path) -> IO[bytes]:
    try:
        return open_regular(path)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UserError(f'{path} cannot be read: {error.strerror}', 'See its permissions, and the disk.') from error


def read_header(path: Path) -> Header:
    """Read and check the header only."""
    with _opened(path) as file:
        length = os.fstat(file.fileno()).st_size
        size = int.from_bytes(file.read(8), 'little')
        if length < 8 or size > min(_LONGEST_HEADER, length - 8):
            raise damaged(path, 'its header does not fit in it')
        text = file.read(size)
    try:
        header = parse_json(text)
        notes = header.pop('__metadata__', {})
        entries = {name: Entry(item['dtype'], tuple(item['shape']), *item['data_offsets']) for name, item in header.items()}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise damaged(path, 'its header cannot be read') from error
    for name, entry in entries.items():
        numbers = (*entry.shape, entry.begin, entry.end)
        if not isinstance(entry.code, str) or entry.code not in _SIZES or any(type(n) is not int or n < 0 for n in numbers):
            raise damaged(path, f"'{name}' has an invalid dtype or shape")
    position = 0
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].begin, item[1].end)):
        if entry.end > length:
            raise damaged(path, f"the bytes of '{name}' are beyond its end")
        if entry.begin != position or entry.end - entry.begin != math.prod(entry.shape) * _SIZES[entry.code]:
            raise damaged(path, f"the byte range of '{name}' does not match its shape")
        position = entry.end
    if position != length - 8 - size:
        raise damaged(path, f'it holds {length - 8 - size} bytes of tensors, and the header describes {position}')
    if not isinstance(notes, dict) or not all(isinstance(value, str) for value in notes.values()):
        raise damaged(path, 'its metadata is not text')
    return Header(entries, notes, 8 + size)


def map_arrays(path: Path) -> tuple[dict[str, Array], Header]:
    """Read-only views of a file's tensors on a memory map: bytes are read when they are used.

    NumPy has no bfloat16: such a tensor is an array of its bits, which ``from_bfloat16`` reads.
    """
    header = read_header(path)
    raw = np.asarray(np.memmap(path, np.uint8, mode='r'))  # a plain array: views of the subclass take several times as long
    arrays: dict[str, Array] = {}
    for name, entry in header.entries.items():
        kind = '<u2' if entry.code == 'BF16' else _NUMPY.get(entry.code)
        if kind is None:
            raise damaged(path, f"'{name}' is {entry.code}, which NumPy does not have")
        arrays[name] = raw[header.start + entry.begin : header.start + entry.end].view(kind).reshape(entry.shape)
    return arrays, header


def from_bfloat16(bits: Array) -> Array:
    """The float32 numbers whose upper halves are ``bits`` (uint16)."""
    widened: Array = (bits.astype(np.uint32) << 16).view(np.float32)
    return widened


def check_seal(path: Path, header: Header) -> None:
    """Raise if the file has a digest in its metadata that is not that of its content."""
    if seal.KEY not in header.metadata:
        return
    raw = np.memmap(path, np.uint8, mode='r')
    described = {name: (entry.code, entry.shape) for name, entry in header.entries.items()}
    places = {name: slice(header.start + entry.begin, header.start + entry.end) for name, entry in header.entries.items()}
    if not seal.is_intact(described, header.metadata, lambda name: raw[places[name]].data):
        raise Damaged(
            f"{path} is damaged: the SHA-256 of its tensors and metadata is not the one in its metadata ('{seal.KEY}')",
            f"Take another copy of it, or make it again. If its tensors were changed on purpose, leave '{seal.KEY}' out.",
        )


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a file on the CPU. Tied tensors are tied again. If the file has a digest of its own, it is compared."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    header = read_header(path)
    check_seal(path, header)
    try:
        tensors: dict[str, Tensor] = load_file(path)
        tied = parse_json(header.metadata.get(_TIED, '{}'))
        return {**tensors, **{name: tensors[kept] for name, kept in tied.items()}}
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise damaged(path, str(error)) from error


class Damaged(UserError):
    """The content of a file is not what was written."""


def damaged(path: Path, why: str) -> Damaged:
    return Damaged(f'{path} is damaged: {why}', 'Take another copy of it, or an older checkpoint (--load-from iter_N).')
