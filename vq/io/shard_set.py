"""A complete set of shards, read through memory maps."""

from __future__ import annotations

import bisect
import collections
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from vq.core.errors import UserError, listing
from vq.io import tensorfile
from vq.io.digest import read_digest
from vq.io.manifest import check_producer, read_manifest, shard_name
from vq.io.shard import Shard

_OPEN = 256  # memory maps held open at once: each costs a file descriptor


class ShardSet(Sequence[dict[str, Any]]):
    """A complete set: ``set[i]`` is a dict of views and the id. ``expect``: fields that its producer must have."""

    def __init__(self, folder: str | Path, expect: Mapping[str, Any] | None = None, verify: bool = False) -> None:
        self.folder = Path(folder)
        self.manifest = read_manifest(self.folder)
        if not self.manifest.complete:
            count = self.manifest.shard_count
            end = shard_name(0, count).partition('-of-')[2]
            there = sum(1 for _ in self.folder.glob(f'shard-*-of-{end}'))  # not one look for each shard the manifest claims
            raise UserError(
                f'{self.folder} is not complete: {there} of {count} shards are there',
                'Run the command that writes it once more: it goes on where it stopped.',
            )
        check_producer(self.folder, self.manifest, expect or {})
        for entry in self.manifest.shards:
            path = self.folder / entry.name
            size = path.stat().st_size if path.is_file() else None
            if size != entry.size:
                why = 'it is missing' if size is None else f'it has {size} bytes instead of {entry.size}'
                raise tensorfile.damaged(path, why)
        self.starts = [0]  # first row of each shard, then the number of rows; for shuffling within shards
        for entry in self.manifest.shards:
            self.starts.append(self.starts[-1] + entry.count)
        self._open: collections.OrderedDict[int, Shard] = collections.OrderedDict()
        if verify:
            self.verify()

    def __len__(self) -> int:
        return self.starts[-1]

    def __getitem__(self, index: Any) -> Any:
        shard, row = self._find(index)
        sample = {name: shard.get(name, row) for name in self.manifest.columns}
        try:
            return {**sample, 'id': sample['id'].decode()}
        except UnicodeDecodeError as error:
            raise tensorfile.damaged(self._find(index)[0].path, 'it has an id that is not UTF-8') from error

    def ids(self) -> list[str]:
        return [sample for index in range(len(self.manifest.shards)) for sample in self._shard(index).ids()]

    def column(self, name: str) -> ColumnView:
        """A view of one column over all rows of the set; nothing is read yet."""
        if name not in self.manifest.columns:
            raise UserError(f"{self.folder} has no column '{name}'", f'It has: {listing(self.manifest.columns)}.')
        return ColumnView(self, name)

    def verify(self) -> None:
        """Check the SHA-256 of every file, and that all tokens are below the codebook size."""
        paths = [self.folder / entry.name for entry in self.manifest.shards]
        with ThreadPoolExecutor(4) as pool:
            for path, entry, digest in zip(paths, self.manifest.shards, pool.map(read_digest, paths), strict=True):
                if digest != entry.sha256:
                    raise tensorfile.damaged(path, 'its SHA-256 is not the one in the manifest')
        size = self.manifest.producer.get('codebook_size')
        if self.manifest.kind == 'tokens' and size is not None:
            for index, path in enumerate(paths):
                tokens = self._shard(index).arrays['tokens']
                if tokens.size and int(tokens.max()) >= size:
                    raise tensorfile.damaged(path, f'it has the token {tokens.max()}, and the codebook has {size} codes')

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, '_open': collections.OrderedDict()}  # worker processes map the files themselves

    def _find(self, index: int) -> tuple[Shard, int]:
        place = int(index) + (len(self) if index < 0 else 0)
        if not 0 <= place < len(self):
            raise IndexError(f'row {index} of {len(self)}')
        shard = bisect.bisect_right(self.starts, place) - 1
        return self._shard(shard), place - self.starts[shard]

    def _shard(self, index: int) -> Shard:
        if index in self._open:
            self._open.move_to_end(index)
            return self._open[index]
        entry = self.manifest.shards[index]
        shard = Shard(self.folder / entry.name)
        if len(shard) != entry.count or shard.described != self.manifest.columns:
            raise tensorfile.damaged(shard.path, 'its rows or columns are not those in the manifest')
        self._open[index] = shard
        if len(self._open) > _OPEN:
            self._open.popitem(last=False)
        return shard


class ColumnView(Sequence[Any]):
    """A column over all shards: an index gives a view of one row, a slice or a list of indices gives one array."""

    def __init__(self, owner: ShardSet, name: str) -> None:
        self._owner, self._name = owner, name
        about = owner.manifest.columns[name]
        self.is_bytes = about['dtype'] == 'bytes'
        self.dtype = np.dtype('S') if self.is_bytes else np.dtype(about['dtype'])
        self.shape = (len(owner), *about['shape'])

    def __len__(self) -> int:
        return len(self._owner)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, int | np.integer):
            shard, row = self._owner._find(int(index))
            return shard.get(self._name, row)
        wanted = range(*index.indices(len(self))) if isinstance(index, slice) else index
        if self.is_bytes:
            return [self[int(i)] for i in wanted]
        rows = np.asarray(wanted)
        rows = np.flatnonzero(rows) if rows.dtype == bool else rows.astype(np.int64)
        rows = np.where(rows < 0, rows + len(self), rows)
        if rows.size and not 0 <= int(rows.min()) <= int(rows.max()) < len(self):
            raise IndexError(f'rows reach from {rows.min()} to {rows.max()}, and there are {len(self)}')
        result = np.empty((len(rows), *self.shape[1:]), self.dtype)
        shards = np.searchsorted(self._owner.starts, rows, side='right') - 1
        for number in np.unique(shards):
            chosen = np.flatnonzero(shards == number)
            shard = self._owner._shard(int(number))
            result[chosen] = shard.arrays[self._name][rows[chosen] - self._owner.starts[number]]
        return result
