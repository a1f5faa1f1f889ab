"""Files of samples as ADM's evaluator has them: an ``.npz`` with ``arr_0``, uint8 (N, H, W, 3), and nothing that must be run.

``np.savez`` stores arrays as they are, so such a file can be mapped into memory, whatever its size: pages are read when a
sample is. A compressed one cannot, and is read whole, once.
"""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from vq.core.errors import UserError
from vq.io import atomic

SAMPLES = 'arr_0'
LAYOUT = f"Samples are '{SAMPLES}', uint8 (N, H, W, 3), RGB."
_LOCAL_HEADER = 30  # bytes of a zip entry's local header, before its name
Shape = tuple[int, ...]


def arrays_in(path: Path) -> dict[str, tuple[Shape, np.dtype]]:
    """Name -> shape and dtype of every array of an ``.npz``, without reading them."""
    try:
        with zipfile.ZipFile(path) as archive:
            found = {}
            for name in archive.namelist():
                with archive.open(name) as member:
                    shape, _, dtype = _read_header(member)
                found[name.removesuffix('.npy')] = shape, dtype
            return found
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise UserError(f'{path} is no readable .npz file: {error}', 'Fetch it again, or make it again.') from error


def open_samples(path: Path) -> np.ndarray:
    """``arr_0`` (N, H, W, 3) uint8, mapped where the file is not compressed; anything else is refused, by what it is."""
    arrays = arrays_in(path)
    if SAMPLES not in arrays:
        has = ', '.join(f"'{name}' {shape}" for name, (shape, _) in sorted(arrays.items())) or 'nothing'
        raise UserError(f'{path} has no samples, it holds {has}', LAYOUT)
    _check(path, *arrays[SAMPLES])
    with zipfile.ZipFile(path) as archive:
        entry = archive.getinfo(f'{SAMPLES}.npy')
        with archive.open(entry) as member:
            shape, fortran, dtype = _read_header(member)
            start = member.tell()  # of the data within the entry
            if entry.compress_type == zipfile.ZIP_STORED:
                offset = _data_offset(path, entry) + start
                order = 'F' if fortran else 'C'
                return np.memmap(path, dtype, 'r', offset, shape, order)  # type: ignore[call-overload, no-any-return]
    with np.load(path, allow_pickle=False) as file:
        loaded: np.ndarray = file[SAMPLES]
        return loaded


def write_samples(
    path: Path, samples: Iterator[np.ndarray], shape: Shape, more: Mapping[str, np.ndarray] | None = None
) -> None:
    """Write (H, W, 3) uint8 pictures one after the other as ``arr_0`` of ``shape`` (N, H, W, 3): the file, or nothing.

    ``more``: further small arrays, such as ADM's ``arr_1`` of classes.
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
                        f'sample {count} is {sample.dtype} {sample.shape}, and those before it uint8 {tuple(shape[1:])}',
                        'A file of samples holds pictures of one size: write PNG files.',
                    )
                member.write(np.ascontiguousarray(sample).tobytes())
                count += 1
        for name, array in (more or {}).items():
            with archive.open(zipfile.ZipInfo(f'{name}.npy'), 'w', force_zip64=True) as member:
                np.lib.format.write_array(member, np.ascontiguousarray(array), allow_pickle=False)
        if count != shape[0]:
            raise ValueError(f'{count} samples came, and {shape[0]} were promised')


def _check(path: Path, shape: Shape, dtype: np.dtype) -> None:
    what = f"{path}: '{SAMPLES}' is {dtype} {shape}"
    if dtype != np.uint8:
        hint = 'Bring them to whole numbers from 0 to 255 first: for values from 0 to 1, (255 * x).round().astype(np.uint8).'
        if dtype.kind == 'f':
            raise UserError(f'{what}: floating-point images have no agreed range', hint)
        raise UserError(f'{what}, and not 8 bits', LAYOUT)
    if len(shape) == 3 or (len(shape) == 4 and shape[3] == 1):
        raise UserError(
            f'{what}: gray images, and feature networks see three channels',
            'Repeat the channel, np.repeat(x.reshape(*x.shape[:3], 1), 3, axis=3), and name it in the result.',
        )
    if len(shape) == 4 and shape[1] == 3 and shape[3] != 3:
        raise UserError(f'{what}: channels come first', 'Turn them to the end: x.transpose(0, 2, 3, 1).')
    if len(shape) != 4 or shape[3] != 3:
        raise UserError(f'{what}, which are no RGB images', LAYOUT)
    if 0 in shape:
        raise UserError(f'{what}: there is no image in it', 'Give a file with samples.')


def _read_header(member: object) -> tuple[Shape, bool, np.dtype]:
    version = np.lib.format.read_magic(member)  # type: ignore[arg-type]
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise ValueError(f'an array in version {version} of the npy format')
    return readers[version](member)  # type: ignore[arg-type]


def _data_offset(path: Path, entry: zipfile.ZipInfo) -> int:
    """Where an entry's data begin: its local header has lengths of its own."""
    with open(path, 'rb') as file:
        file.seek(entry.header_offset)
        header = file.read(_LOCAL_HEADER)
    name, extra = struct.unpack('<HH', header[26:30])
    return entry.header_offset + _LOCAL_HEADER + int(name) + int(extra)
