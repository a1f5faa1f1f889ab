"""One file of a set of shards: columns over rows, memory-mapped.

A fixed-size column is one tensor (n, ...); one of bfloat16 is read as float32. A column of bytes is two tensors:
``NAME.bytes``, the concatenated values, and ``NAME.offsets`` (n + 1). Every shard has the column ``id``.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np

from vq.core.reading import parse_json
from vq.io import tensorfile

BYTES, OFFSETS = '.bytes', '.offsets'
BFLOAT16 = 'bfloat16'  # the dtype of a column, which NumPy does not have


class Shard:
    """One file, memory-mapped. Header and offsets are checked when it is opened; rows are read when they are used."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.arrays, header = tensorfile.map_arrays(path)
        self.note = header.metadata.get('vq.shard', '')
        self.notes = header.metadata
        self._halves = {name for name, entry in header.entries.items() if entry.code == 'BF16'}
        offsets = self.arrays.get('id' + OFFSETS)
        if offsets is None or offsets.ndim != 1 or not offsets.size or 'id' + BYTES not in self.arrays:
            raise tensorfile.damaged(path, 'it has no ids')
        self._count = offsets.size - 1
        for name, array in self.arrays.items():
            base = name.removesuffix(OFFSETS)
            if name.endswith(OFFSETS) and base + BYTES in self.arrays:
                blob = self.arrays[base + BYTES]
                sound = (
                    array.ndim == 1
                    and array.dtype == np.int64
                    and array.size == self._count + 1
                    and blob.ndim == 1
                    and array[0] == 0
                    and array[-1] == blob.size
                    and bool((array[1:] >= array[:-1]).all())
                )
            else:
                sound = name.endswith(BYTES) or (array.ndim > 0 and len(array) == self._count)
            if not sound:
                raise tensorfile.damaged(path, f"the rows of '{name}' do not add up")
        try:
            self.skipped: list[str] = parse_json(header.metadata.get('vq.skipped', '[]'))
            if not isinstance(self.skipped, list) or not all(isinstance(sample, str) for sample in self.skipped):
                raise ValueError('it is not a list of ids')
        except ValueError as error:
            raise tensorfile.damaged(path, 'its list of skipped samples cannot be read') from error
        self.described: dict[str, dict[str, Any]] = {}
        for name in sorted(self.arrays):
            if name.endswith(OFFSETS):
                self.described[name.removesuffix(OFFSETS)] = {'dtype': 'bytes', 'shape': []}
            elif not name.endswith(BYTES):
                kind = BFLOAT16 if name in self._halves else str(self.arrays[name].dtype)
                self.described[name] = {'dtype': kind, 'shape': list(self.arrays[name].shape[1:])}

    def __len__(self) -> int:
        return int(self._count)

    def ids(self) -> list[str]:
        blob, offsets = self.arrays['id' + BYTES].tobytes(), self.arrays['id' + OFFSETS].tolist()
        try:
            return [blob[start:stop].decode() for start, stop in itertools.pairwise(offsets)]
        except UnicodeDecodeError as error:
            raise tensorfile.damaged(self.path, 'it has an id that is not UTF-8') from error

    def get(self, name: str, row: int) -> Any:
        """One row of a fixed-size column, a view if NumPy has its type, or the bytes of one row of a column of bytes."""
        if name in self.arrays:
            return self.rows(name, row)
        return self.view(name, row).tobytes()

    def view(self, name: str, row: int) -> tensorfile.Array:
        """The bytes of one row of a column of bytes, as a view of the file."""
        offsets = self.arrays[name + OFFSETS]
        return self.arrays[name + BYTES][offsets[row] : offsets[row + 1]]

    def rows(self, name: str, wanted: Any) -> Any:
        """Rows of a fixed-size column: a number, a slice or an array of numbers."""
        found = self.arrays[name][wanted]
        return tensorfile.from_bfloat16(found) if name in self._halves else found
