"""A complete set of shards, read through memory maps."""

from __future__ import annotations

import bisect
import collections
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from vq.core.errors import UserError, listing
from vq.io import remote, remote_shards
from vq.io.checked import Checked
from vq.io.digest import read_digest
from vq.io.manifest import NAME, ShardEntry, check_producer, read_manifest, shard_name
from vq.io.shard import BFLOAT16, Shard
from vq.io.tensorfile import Damaged

_OPEN = 256  # memory maps held open at once: each costs a file descriptor


class ShardSet(Sequence[dict[str, Any]]):
    """A complete set: ``set[i]`` is a dict of views and the id. ``expect``: fields that its producer must have.

    Opening checks the manifest, and that every file exists with the recorded size. The first read of a shard compares its
    SHA-256 and its tokens (vq/io/checked.py). ``verify``: check all shards now, also those checked before.

    ``by_row``: the reader compares a checksum of each row, so whole shards are not read before the first row of them is used.

    ``folder`` may be an address: a shard is copied into the cache of remote files when it is first used.
    """

    def __init__(
        self, folder: str | Path, expect: Mapping[str, Any] | None = None, verify: bool = False, by_row: bool = False
    ) -> None:
        self.by_row = by_row
        self.url = str(folder) if remote.is_remote(str(folder)) else ''
        self.folder = remote_shards.manifest_folder(self.url) if self.url else Path(folder)
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
        for entry in () if self.url else self.manifest.shards:
            path = self.folder / entry.name
            size = path.stat().st_size if path.is_file() else None
            if size != entry.size:
                why = 'it is missing' if size is None else f'it has {size} bytes instead of {entry.size}'
                raise damaged_shard(path, why)
        self.starts = [0]  # first row of each shard, then the number of rows; for shuffling within shards
        for entry in self.manifest.shards:
            self.starts.append(self.starts[-1] + entry.count)
        self._open: collections.OrderedDict[int, Shard] = collections.OrderedDict()
        self._most = remote_shards.most_open(self.manifest, _OPEN) if self.url else _OPEN
        self.checked = Checked(self.folder, len(self.manifest.shards))
        if verify:
            self.verify()

    def __len__(self) -> int:
        return self.starts[-1]

    def __getitem__(self, index: Any) -> Any:
        shard, row = self.find(index)
        sample = {name: shard.get(name, row) for name in self.manifest.columns}
        try:
            return {**sample, 'id': sample['id'].decode()}
        except UnicodeDecodeError as error:
            raise damaged_shard(shard.path, 'it has an id that is not UTF-8') from error

    def ids(self) -> list[str]:
        return [sample for index in range(len(self.manifest.shards)) for sample in self._shard(index).ids()]

    def column(self, name: str) -> ColumnView:
        """A view of one column over all rows of the set; nothing is read yet."""
        if name not in self.manifest.columns:
            raise UserError(f"{self.folder} has no column '{name}'", f'It has: {listing(self.manifest.columns)}.')
        return ColumnView(self, name)

    def verify(self) -> None:
        """Check every file now, whatever is known of it: its SHA-256, and that all tokens are codes of the codebook."""
        with ThreadPoolExecutor(4) as pool:
            for _ in pool.map(lambda index: self._check(index, self._map(index)), range(len(self.manifest.shards))):
                pass

    def _check(self, index: int, shard: Shard) -> None:
        """Compare the SHA-256 of a shard with the manifest, and its tokens with the size of the codebook."""
        entry, started = self.manifest.shards[index], time.thread_time_ns()
        before = shard.path.stat()
        if read_digest(shard.path) != entry.sha256:
            raise damaged_shard(shard.path, 'its SHA-256 is not the one in the manifest')
        self._check_tokens(shard)
        self.checked.add(index, shard.path, self._proof(entry), before, time.thread_time_ns() - started)

    def _map(self, index: int) -> Shard:
        entry = self.manifest.shards[index]
        shard = Shard(remote_shards.fetch(self.url, entry) if self.url else self.folder / entry.name)
        if len(shard) != entry.count or shard.described != self.manifest.columns:
            raise damaged_shard(shard.path, 'its rows or columns are not those in the manifest')
        return shard

    def _proof(self, entry: ShardEntry) -> str:
        return f'{entry.sha256}/{self._codes()}'

    def _codes(self) -> int | None:
        size = self.manifest.producer.get('codebook_size')
        return int(size) if self.manifest.kind == 'tokens' and type(size) is int else None

    def _check_tokens(self, shard: Shard) -> None:
        size, tokens = self._codes(), shard.arrays.get('tokens')
        if size is None or tokens is None or not tokens.size:
            return
        if tokens.dtype.kind not in 'iu':
            raise damaged_shard(shard.path, f'its tokens are {tokens.dtype}, not whole numbers')
        low, high = int(tokens.min()), int(tokens.max())
        if low < 0 or high >= size:
            wrong = low if low < 0 else high
            raise damaged_shard(shard.path, f'it has the token {wrong}, and the codebook has {size} codes')

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, '_open': collections.OrderedDict()}  # worker processes map the files themselves

    def find(self, index: int) -> tuple[Shard, int]:
        """The shard that holds a row of the set, and the number of the row in it."""
        place = int(index) + (len(self) if index < 0 else 0)
        if not 0 <= place < len(self):
            raise IndexError(f'row {index} of {len(self)}')
        shard = bisect.bisect_right(self.starts, place) - 1
        return self._shard(shard), place - self.starts[shard]

    def _checked(self, index: int) -> Shard:
        shard = self._map(index)
        if self.by_row and shard.note != self.manifest.note(index):  # files that were swapped have sound rows
            raise damaged_shard(shard.path, 'it holds other samples than its name says')
        known = not self.url and (self.by_row or index in self.checked)  # a copy can be another one than the last time
        if not known and not self.checked.is_recorded(index, shard.path, self._proof(self.manifest.shards[index])):
            self._check(index, shard)
        return shard

    def _checked_copy(self, index: int) -> Shard:
        """A copy that the cache has just deleted, or that is damaged, is fetched once more."""
        try:
            return self._checked(index)
        except (FileNotFoundError, Damaged):
            remote_shards.forget(self.url, self.manifest.shards[index])
            return self._checked(index)

    def _shard(self, index: int) -> Shard:
        if index in self._open:
            self._open.move_to_end(index)
            return self._open[index]
        shard = self._checked_copy(index) if self.url else self._checked(index)
        self._open[index] = shard
        if len(self._open) > self._most:
            self._open.popitem(last=False)
        return shard


def damaged_shard(path: Path, why: str) -> Damaged:
    return Damaged(
        f'{path} is damaged: {why}',
        f'Delete it and {NAME}, and run the command that wrote the set again: it writes only what is missing.',
    )


class ColumnView(Sequence[Any]):
    """A column over all shards: an index gives a view of one row, a slice or a list of indices gives one array."""

    def __init__(self, owner: ShardSet, name: str) -> None:
        self._owner, self._name = owner, name
        about = owner.manifest.columns[name]
        self.is_bytes = about['dtype'] == 'bytes'
        self.dtype = np.dtype('S' if self.is_bytes else 'float32' if about['dtype'] == BFLOAT16 else about['dtype'])
        self.shape = (len(owner), *about['shape'])

    def __len__(self) -> int:
        return len(self._owner)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, int | np.integer):
            shard, row = self._owner.find(int(index))
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
            result[chosen] = shard.rows(self._name, rows[chosen] - self._owner.starts[number])
        return result
