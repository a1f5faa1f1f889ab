"""Sample files in the format of ADM's evaluator: an ``.npz`` with ``arr_0``, uint8 (N, H, W, 3). Pickles are never loaded.

``np.savez`` stores arrays uncompressed. Such a file is memory-mapped, whatever its size: a page is read when one of its
samples is used. A compressed file cannot be mapped and is read whole, once.
"""

from __future__ import annotations

import math
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from tokenize import TokenError

import numpy as np

from vq.core.errors import UserError, listing
from vq.core.reading import open_regular
from vq.io import atomic

SAMPLES = 'arr_0'
LAYOUT = f"Samples are '{SAMPLES}', uint8 (N, H, W, 3), RGB."
_LOCAL_HEADER = 30  # bytes of a zip entry's local header, before its name
MOST_ARRAYS = 1000
FREE = 2**28  # bytes that any array may take
EXPANSION = 100  # times its compressed size that an array may take beyond that; images of one colour reach 1,000
ERRORS = (OSError, ValueError, EOFError, RuntimeError, MemoryError, TokenError, struct.error, zlib.error, zipfile.BadZipFile)
Shape = tuple[int, ...]


def arrays_in(path: Path) -> dict[str, tuple[Shape, np.dtype]]:
    """Name -> shape and dtype of every array of an ``.npz``, without reading them."""
    try:
        with open_regular(path) as file, zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            if len(entries) > MOST_ARRAYS:
                raise ValueError(f'it holds {len(entries):,} arrays, and at most {MOST_ARRAYS} are read')
            return {entry.filename.removesuffix('.npy'): _check_entry(archive, entry) for entry in entries}
    except ERRORS as error:
        raise UserError(f'{path} is not a readable .npz file: {error}', 'Fetch it again, or write it again.') from error


def _check_entry(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> tuple[Shape, np.dtype]:
    """Shape and dtype of one array; an error unless its header agrees with the size of its data."""
    if entry.file_size > FREE + EXPANSION * entry.compress_size:
        raise ValueError(f"'{entry.filename}' expands from {entry.compress_size:,} bytes to {entry.file_size:,}")
    with archive.open(entry) as member:
        shape, _, dtype = _read_header(member)
        claimed = math.prod(shape) * dtype.itemsize
        if not dtype.hasobject and (min(shape, default=0) < 0 or member.tell() + claimed != entry.file_size):
            raise ValueError(f"the header of '{entry.filename}' says {dtype} {shape}, and it has {entry.file_size:,} bytes")
    return shape, dtype


def open_samples(path: Path) -> np.ndarray:
    """``arr_0`` (N, H, W, 3) uint8, memory-mapped if the file is not compressed. An error names any other layout."""
    arrays = arrays_in(path)
    if SAMPLES not in arrays:
        has = listing(f"'{name}' {shape}" for name, (shape, _) in arrays.items()) or 'nothing'
        raise UserError(f'{path} has no samples, it holds {has}', LAYOUT)
    _check(path, *arrays[SAMPLES])
    return open_array(path, SAMPLES)


def open_array(path: Path, name: str) -> np.ndarray:
    """An array of an ``.npz`` that ``arrays_in`` has accepted, memory-mapped if the file is not compressed."""
    with zipfile.ZipFile(path) as archive:
        entry = archive.getinfo(f'{name}.npy')
        with archive.open(entry) as member:
            shape, fortran, dtype = _read_header(member)
            start = member.tell()  # of the data within the entry
            if entry.compress_type == zipfile.ZIP_STORED:
                offset = _data_offset(path, entry) + start
                order = 'F' if fortran else 'C'
                return np.memmap(path, dtype, 'r', offset, shape, order)  # type: ignore[call-overload, no-any-return]
    try:
        with np.load(path, allow_pickle=False) as file:
            loaded: np.ndarray = file[name]
            return loaded
    except ERRORS as error:
        raise UserError(f'{path} is not a readable .npz file: {error}', 'Fetch it again, or write it again.') from error


def write_samples(
    path: Path, samples: Iterator[np.ndarray], shape: Shape, more: Mapping[str, np.ndarray] | None = None
) -> None:
    """Write (H, W, 3) uint8 images one by one as ``arr_0`` of ``shape`` (N, H, W, 3). The file is written atomically.

    ``more``: further small arrays, such as ADM's class labels ``arr_1``.
    """
    count = 0
    with (
        atomic.atomic_file(path, int(np.prod(shape))) as writer,
        zipfile.ZipFile(writer, 'w', zipfile.ZIP_STORED) as archive,  # type: ignore[arg-type, call-overload]
    ):
        with archive.open(zipfile.ZipInfo(f'{SAMPLES}.npy'), 'w', force_zip64=True) as member:
            header = {'descr': '|u1', 'fortran_order': False, 'shape': tuple(shape)}
            np.lib.format.write_array_header_1_0(member, header)
            for sample in samples:
                if sample.shape != tuple(shape[1:]) or sample.dtype != np.uint8:
                    raise UserError(
                        f'sample {count} is {sample.dtype} {sample.shape}; the samples before it are uint8 {tuple(shape[1:])}',
                        'A sample file holds images of one size: write PNG files instead.',
                    )
                member.write(np.ascontiguousarray(sample).tobytes())
                count += 1
        for name, array in (more or {}).items():
            with archive.open(zipfile.ZipInfo(f'{name}.npy'), 'w', force_zip64=True) as member:
                np.lib.format.write_array(member, np.ascontiguousarray(array), allow_pickle=False)
        if count != shape[0]:
            raise ValueError(f'{count} samples were given, and shape announces {shape[0]}')


def _check(path: Path, shape: Shape, dtype: np.dtype) -> None:
    what = f"{path}: '{SAMPLES}' is {dtype} {shape}"
    if dtype != np.uint8:
        hint = 'Convert them to uint8, 0 to 255, first: for values from 0 to 1, (255 * x).round().astype(np.uint8).'
        if dtype.kind == 'f':
            raise UserError(f'{what}: floating-point images have no agreed range', hint)
        raise UserError(f'{what}, and uint8 is needed', LAYOUT)
    if len(shape) == 3 or (len(shape) == 4 and shape[3] == 1):
        raise UserError(
            f'{what}: gray images, and feature networks need three channels',
            'Repeat the channel, np.repeat(x.reshape(*x.shape[:3], 1), 3, axis=3), and say so next to the figures.',
        )
    if len(shape) == 4 and shape[1] == 3 and shape[3] != 3:
        raise UserError(f'{what}: channels come first', 'Move them to the last dimension: x.transpose(0, 2, 3, 1).')
    if len(shape) != 4 or shape[3] != 3:
        raise UserError(f'{what}: these are not RGB images', LAYOUT)
    if 0 in shape:
        raise UserError(f'{what}: it holds no image', 'Give a file with samples.')


def _read_header(member: object) -> tuple[Shape, bool, np.dtype]:
    version = np.lib.format.read_magic(member)  # type: ignore[arg-type]
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise ValueError(f'an array in version {version} of the npy format')
    return readers[version](member)  # type: ignore[arg-type]


def _data_offset(path: Path, entry: zipfile.ZipInfo) -> int:
    """The offset of an entry's data. Name and extra field can be longer in the local header than in the zip directory."""
    with open(path, 'rb') as file:
        file.seek(entry.header_offset)
        header = file.read(_LOCAL_HEADER)
    name, extra = struct.unpack('<HH', header[26:30])
    return entry.header_offset + _LOCAL_HEADER + int(name) + int(extra)
