"""The rows of packed images, and what a folder of packed splits looks like.

A folder has one set of shards (vq/io/shards.py) per split: ``O/train``, ``O/validation``. A row is one sample:

========== ============ ===========================================================================
column     of a row     content
========== ============ ===========================================================================
image      bytes        uint8 pixels (H, W, 3) in C order, or the bytes of an image file
form       uint8        0: pixels, 1: an image file
size       (2,) int32   H and W of the upright image
category   int64        class number; -1: none
id         text         id of the sample in the dataset that was packed
fields     bytes        boxes, masks, captions and other fields; empty if there are none
crc        uint32       CRC-32 of all of the above
========== ============ ===========================================================================

``fields`` is the length of a header (4 bytes, little-endian), the header in JSON, and the bytes of arrays one after the other.
The header has the plain values, and dtype and shape of each array.
"""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vq.core.errors import UserError
from vq.core.reading import parse_json
from vq.io.crc import crc32_function
from vq.io.manifest import NAME
from vq.io.shard import Shard
from vq.io.shard_set import damaged_shard
from vq.io.tensorfile import Array

KIND = 'images'
PIXELS, FILE = 0, 1  # forms of an image
SPLITS = ('train', 'validation', 'test', 'predict')
COLUMNS = frozenset({'image', 'form', 'size', 'category', 'id', 'fields', 'crc'})
_DTYPE = re.compile(r'\|[biu]1|<[iuf][248]')


class Row(NamedTuple):
    """One sample as it is stored."""

    id: str
    image: bytes | Array  # contiguous uint8
    form: int
    size: tuple[int, int]  # height, width
    category: int
    fields: bytes

    def crc(self) -> int:
        numbers = struct.pack('<Biiq', self.form, *self.size, self.category)
        crc32 = crc32_function()
        found = crc32(self.image if isinstance(self.image, bytes) else self.image.data)
        return crc32(b'%b%b\0%b' % (numbers, self.id.encode(), self.fields), found)


def columns_of(rows: Sequence[Row]) -> dict[str, Any]:
    """The columns of a shard, for ``ShardWriter.write``, which adds the ids."""
    return {
        'image': [bytes(row.image) for row in rows],
        'form': np.array([row.form for row in rows], np.uint8),
        'size': np.array([row.size for row in rows], np.int32).reshape(-1, 2),
        'category': np.array([row.category for row in rows], np.int64),
        'fields': [row.fields for row in rows],
        'crc': np.array([row.crc() for row in rows], np.uint32),
    }


def row_of(shard: Shard, index: int) -> Row:
    """One row of a shard, the image as a view of the file. An error if its CRC-32 is another one."""
    arrays = shard.arrays
    height, width = arrays['size'][index].tolist()
    image, form = shard.view('image', index), int(arrays['form'][index])
    try:
        name = shard.view('id', index).tobytes().decode()
    except UnicodeDecodeError as error:
        raise damaged_shard(shard.path, f'the id of its row {index} is not UTF-8') from error
    row = Row(name, image, form, (height, width), int(arrays['category'][index]), shard.view('fields', index).tobytes())
    if row.crc() != int(arrays['crc'][index]):
        raise damaged_shard(shard.path, f'the CRC-32 of its row {index} ({name}) is not the one that was written')
    if form not in (PIXELS, FILE) or (form == PIXELS and len(image) != height * width * 3) or min(height, width) < 1:
        raise damaged_shard(shard.path, f'its row {index} ({name}) contradicts itself')
    return row


def pack_fields(values: Mapping[str, Any], sample: str) -> bytes:
    """Fields of a sample besides image, id and category: numbers, text, lists and dicts of these, arrays of numbers."""
    if not values:
        return b''
    plain: dict[str, Any] = {}
    arrays: dict[str, Array] = {}
    for name, value in values.items():
        if isinstance(value, np.ndarray | np.generic):
            array = np.asarray(value, order='C')
            arrays[name] = array.astype(array.dtype.newbyteorder('<'), copy=False)
        else:
            plain[name] = value
    unfit = [name for name, array in arrays.items() if not _DTYPE.fullmatch(array.dtype.str)]
    try:
        described = {name: [array.dtype.str, [*array.shape]] for name, array in arrays.items()}
        header = json.dumps([plain, described]).encode()
    except (TypeError, ValueError) as error:
        unfit += [str(error)]
    if unfit:
        raise UserError(
            f'the sample {sample} has fields that cannot be packed: {", ".join(unfit)}',
            'Give numbers, text, lists and dicts of these, or arrays of numbers.',
        )
    return b''.join([len(header).to_bytes(4, 'little'), header, *(array.tobytes() for array in arrays.values())])


def unpack_fields(stored: bytes) -> dict[str, Any]:
    """What ``pack_fields`` was given; lists in place of tuples. ``ValueError`` for anything else."""
    if not stored:
        return {}
    start = 4 + int.from_bytes(stored[:4], 'little')
    try:
        plain, described = parse_json(stored[4:start])
        found = dict(plain)
        for name, (dtype, shape) in described.items():
            sizes = [int(size) for size in shape]
            if not _DTYPE.fullmatch(dtype) or min(sizes, default=0) < 0:
                raise ValueError(f'{name} has the dtype {dtype} and the shape {sizes}')
            stop = start + math.prod(sizes) * int(dtype[2:])
            found[name] = np.frombuffer(stored[start:stop], dtype).reshape(sizes)
            start = stop
    except (TypeError, AttributeError, OverflowError) as error:
        raise ValueError(f'its fields cannot be read: {error}') from error
    if start != len(stored):
        raise ValueError(f'its fields have {len(stored)} bytes, and {start} are described')
    return found


def splits_in(root: Path) -> list[str]:
    """The packed splits below a folder."""
    return [split for split in SPLITS if (root / split / NAME).is_file()]
