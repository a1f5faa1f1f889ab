"""HDF5 files from outside: arrays of known shape, without links to other files, bounded in size."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from vq.core.errors import UserError
from vq.core.reading import open_regular

LARGEST = 2**31  # bytes of an array
LONGEST = 4096  # bytes of a text
AT_ONCE = 4096  # texts


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """The file, for ``numbers`` and ``texts``. Whatever HDF5 says of damage becomes a ``UserError``."""
    try:
        import h5py
    except ImportError as error:
        raise UserError(f'{path} is an HDF5 file, and h5py cannot be imported: {error}', 'pip install "vq[data]"') from error
    try:
        open_regular(path).close()
        with h5py.File(path, 'r', locking=False) as file:
            yield file
    except UserError:
        raise
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, MemoryError) as error:
        raise UserError(f'{path} cannot be read as HDF5: {error}', 'Write or copy the file again.') from error


def _array(file: Any, path: Path, name: str, rank: int) -> Any:
    """An array that lies in the file itself."""
    import h5py

    if not isinstance(file.get(name, getlink=True), h5py.HardLink):
        there = ', '.join(sorted(map(str, file))[:20])
        raise UserError(f'{path} has no array {name}; it holds: {there or "nothing"}', 'Write or copy the file again.')
    array = file[name]
    if not isinstance(array, h5py.Dataset) or array.external or array.is_virtual or array.shape is None:
        raise UserError(f'{name} in {path} is no array, or one that lies in another file', 'Write or copy the file again.')
    if len(array.shape) != rank or math.prod(array.shape) * array.dtype.itemsize > LARGEST:
        raise UserError(f'{name} in {path} has the shape {array.shape}', f'An array of rank {rank} is needed.')
    return array


def numbers(file: Any, path: Path, name: str, rank: int) -> np.ndarray:
    """An array of numbers, in memory."""
    array = _array(file, path, name, rank)
    if array.dtype.kind not in 'iuf':
        raise UserError(f'{name} in {path} is {array.dtype}, and numbers are needed', 'Write or copy the file again.')
    found: np.ndarray = array[()]
    return found


def texts(file: Any, path: Path, name: str) -> Iterator[str]:
    """The texts of an array (N,), some at once: a small file can name one long text any number of times."""
    array = _array(file, path, name, 1)
    for start in range(0, array.shape[0], AT_ONCE):
        for value in array[start : start + AT_ONCE]:
            if not isinstance(value, bytes | str) or len(value) > LONGEST:
                raise UserError(f'{name} in {path} has an entry that is no short text', 'Write or copy the file again.')
            yield value.decode() if isinstance(value, bytes) else value
