"""State in plain containers that ``torch.load(weights_only=True)`` can read. It is checked before it is written."""

from __future__ import annotations

import collections
import pickle
import re
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vq.core.errors import UserError
from vq.io import bounds, torchscript
from vq.io.tensorfile import damaged
from vq.io.writer import CHUNK, Writer

_LEAVES = (str, bytes, int, float, bool, type(None), torch.Size, torch.dtype, torch.device)
_DEEPEST = 64
# what torch raises for damaged files; MemoryError and OverflowError for a length beyond the file, before any memory is taken
DAMAGE = (
    *(RuntimeError, ValueError, EOFError, OSError, LookupError, AttributeError, TypeError),
    *(MemoryError, OverflowError, AssertionError, struct.error, zlib.error, zipfile.BadZipFile),
)


def plain(value: Any, key: str) -> Any:
    """``value`` with its tensors detached. An error names the key of any value that would not load safely."""
    return _plain(value, key, 0)


def _plain(value: Any, key: str, depth: int) -> Any:
    if depth > _DEEPEST:
        raise TypeError(f'{key:.200}... is nested deeper than {_DEEPEST}: does it contain itself?')
    kind = type(value)
    if kind in (Tensor, nn.Parameter):
        return _own_memory(value.detach(), key)
    if kind in _LEAVES:
        return value
    if kind in (dict, collections.OrderedDict):
        for name in value:
            if type(name) not in (str, int, float, bool, bytes, type(None)):
                raise TypeError(f'{key} has the key {name!r}, a {type(name).__name__}: keys must be text or numbers')
        return {name: _plain(item, f'{key}.{name}', depth + 1) for name, item in value.items()}
    if kind in (list, tuple):
        return kind(_plain(item, f'{key}[{index}]', depth + 1) for index, item in enumerate(value))
    raise TypeError(
        f'{key} is a {kind.__module__}.{kind.__qualname__}, and a checkpoint holds only tensors, numbers, text, '
        'lists and dicts of them'
    )


def _own_memory(value: Tensor, key: str) -> Tensor:
    if value.device.type == 'meta':
        raise TypeError(f'{key} is on the meta device and has no values')
    if value.device.type not in ('cpu', 'cuda'):  # torch.save copies CUDA memory itself, but not XLA memory
        return value.cpu()
    # torch.save writes the whole storage of a view, so a small view is cloned
    return value.clone() if value.untyped_storage().nbytes() > 2 * value.numel() * value.element_size() + 4096 else value


def write_plain(writer: Writer, value: Any, key: str) -> None:
    """Write ``value`` as a torch zip file."""
    torch.save(plain(value, key), writer)  # type: ignore[arg-type]  # typed as IO[bytes], but only write and flush are called


def read_torch(path: Path, mmap: bool = False, checksums: bool = True) -> Any:
    """Read a torch file of tensors and plain containers. Anything else in it is refused and never executed.

    torch does not compare the checksums of its zip files, so this does. ``checksums=False``: the caller has compared a digest.
    Of a TorchScript archive, the tensors of its modules.
    """
    bounds.check_zip_size(path)
    if checksums:
        check_zip(path)
    value = _load(path, mmap)
    bounds.check_expansion(path, value)
    return value


def _load(path: Path, mmap: bool) -> Any:
    try:
        if torchscript.is_archive(path):
            return torchscript.read_archive(path)
        if path.suffix != '.safetensors':
            return torch.load(path, map_location='cpu', weights_only=True, mmap=mmap)
        with path.open('rb') as file:  # torch reads a path with this suffix as safetensors, whatever it holds
            return torch.load(file, map_location='cpu', weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r'GLOBAL (\S+)', str(error)) or re.search(
            r'[Uu]nsupported (?:global|class|operand)\S*:? ?(\S+)', str(error)
        )
        name = found[1] if found else ''
        what = f' ({name})' if name else ''
        raise UserError(
            f'{path} is refused: it holds more than tensors{what}, and loading it could run code',
            'If you trust the file, save its tensors alone: torch.save(module.state_dict(), FILE).',
        ) from error
    except DAMAGE as error:
        if isinstance(error, OSError) and error.filename is not None:
            raise
        raise damaged(path, _line_of(error)) from error


def check_zip(path: Path) -> None:
    """Raise if the content of a torch zip file does not have the CRC-32 recorded in it.

    Files of another kind have no checksums. Nor have files written under ``torch.serialization.set_crc32_options(False)``:
    every checksum in them is zero.
    """
    try:
        with open(path, 'rb') as file:
            if file.read(4) != b'PK\x03\x04':
                return
        with zipfile.ZipFile(path) as archive:
            records = archive.infolist()
            if not any(record.CRC for record in records):
                return
            for record in records:
                _read_through(archive, record)
    except DAMAGE as error:
        if isinstance(error, OSError) and error.filename is not None:
            raise
        raise damaged(path, _line_of(error)) from error


def _read_through(archive: zipfile.ZipFile, record: zipfile.ZipInfo) -> None:
    with archive.open(record) as stream:  # compares the checksum at the end of the record
        while stream.read(CHUNK):
            pass


def _line_of(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def count_bytes(value: Any) -> int:
    """The approximate size in bytes of the tensors in plain containers."""
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    if isinstance(value, dict):
        return sum(count_bytes(item) for item in value.values())
    return sum(count_bytes(item) for item in value) if isinstance(value, list | tuple) else 0
