"""Whole files made to hurt: they run code, claim terabytes, or never end. Each takes the place of the file that is damaged."""

from __future__ import annotations

import functools
import os
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import torch

CANARY = 'executed'  # the file that the code of a hostile file would write
# by hand, as there is no need for a pickler here: open('executed', 'w'), os.system('touch executed')
OPENS = b"cbuiltins\nopen\n(S'%s'\nS'w'\ntR." % CANARY.encode()
RUNS = b"cposix\nsystem\n(S'touch %s'\ntR." % CANARY.encode()
FILLS = b'cbuiltins\nbytearray\n(L20000000000L\ntR.'


def _zip(members: dict[str, bytes]) -> bytes:
    result = BytesIO()
    with zipfile.ZipFile(result, 'w', zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED, 1)  # without the time of day
    return result.getvalue()


def _torch(pickled: bytes) -> bytes:
    return _zip({'a/data.pkl': b'\x80\x02' + pickled, 'a/version': b'3\n', 'a/byteorder': b'little'})


def _saved(value: object) -> bytes:
    result = BytesIO()
    torch.save(value, result)
    return result.getvalue()


def _npy(shape: tuple[int, ...], kind: str, size: int) -> bytes:
    result = BytesIO()
    np.lib.format.write_array_header_1_0(result, {'descr': kind, 'fortran_order': False, 'shape': shape})
    return result.getvalue() + bytes(size)


def _nested(depth: int) -> bytes:
    return _torch(b'}X\x05\x00\x00\x00model' * depth + b'}' + b's' * depth + b'.')


def _expanded() -> bytes:
    rows = torch.zeros(1, 3).expand(2**32, 3)
    return _saved({'w': rows, 'state_dict': {'w': rows}, 'mu': rows, 'sigma': rows})


CONTENTS: dict[str, Callable[[], bytes]] = {
    'nothing': lambda: b'',
    'a web page': lambda: b'<!doctype html><html></html>',
    'a Git LFS pointer': lambda: b'version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n',
    'nested lists': lambda: b'[' * 200_000,
    'nested dicts': lambda: b'{"files":' * 200_000,
    '5,000 digits': lambda: b'{"format_version": ' + b'9' * 5000 + b'}',
    'code, zip': lambda: _torch(OPENS),
    'code, legacy': lambda: b'\x80\x02' + RUNS,
    'code in an array': lambda: _zip({name: _npy((1,), '|O', 0) + OPENS for name in ('mu.npy', 'sigma.npy')}),
    'a large bytearray': lambda: _torch(FILLS),
    '20,000 nested dicts': lambda: _nested(20_000),
    'expanded tensors': _expanded,
    'array headers': lambda: _zip({name: _npy((2**40,), '<f8', 64) for name in ('mu.npy', 'sigma.npy')}),
    'an npz bomb': lambda: _zip({'mu.npy': _npy((2**26,), '<f8', 2**29), 'sigma.npy': _npy((1,), '<f8', 8)}),
    'a torch bomb': lambda: _zip({'a/data.pkl': b'\x80\x02}.', 'a/version': b'3\n', 'a/data/0': bytes(2**29)}),
    'a header of 2^62 bytes': lambda: (2**62).to_bytes(8, 'little') + b'{"a": 1}',
}


@functools.cache
def content(name: str) -> bytes:
    """The hostile file of this name. Bombs take a second to make."""
    return CONTENTS[name]()


def _sparse(path: Path) -> None:
    with path.open('wb') as file:
        file.write(b'PK\x03\x04')
        file.truncate(2 * 10**9)  # more than any reader but that of weights accepts, which compares a digest of all of it


PLACES: dict[str, Callable[[Path], object]] = {
    'a pipe': lambda path: os.mkfifo(path),
    'a link to /dev/zero': lambda path: path.symlink_to('/dev/zero'),
    'a link to itself': lambda path: path.symlink_to(path),
    'a link to nothing': lambda path: path.symlink_to('nowhere'),
    'a folder': lambda path: path.mkdir(),
    'a sparse file of 2 GB': _sparse,
}
