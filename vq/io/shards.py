"""One format for tokens, packed images and latents: a folder of safetensors files with a manifest.

Shard k holds the samples ``k * S`` to ``(k + 1) * S`` of a dataset. Rank r of w writes the shards k with ``k % w == r``. So
the files do not depend on the number of ranks, and a command that is repeated skips the shards that exist. A file has one
row per sample in each column: fixed-size columns (``tokens`` (n, variants, *token_shape), ``category`` (n,)), and columns
of bytes or text (``id``), stored as ``id.bytes`` (concatenated) and ``id.offsets`` (n + 1).
"""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vq.core import collectives
from vq.core.errors import RunFailure, UserError, listing
from vq.io import atomic, tensorfile
from vq.io.digest import read_digest
from vq.io.manifest import NAME, Manifest, ShardEntry, check_producer, plain, read_manifest, shard_name
from vq.io.shard import BYTES, OFFSETS, Shard
from vq.io.shard_set import ColumnView, ShardSet
from vq.io.tensorfile import Array
from vq.io.writer import disk_errors

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ['ColumnView', 'Shard', 'ShardRange', 'ShardSet', 'ShardWriter']

logger = logging.getLogger('vq')

Column = Any  # (n, ...) array or tensor, or a sequence of n bytes objects
Summed = Callable[[Sequence[Mapping[str, str]]], Mapping[str, Any]]


@dataclasses.dataclass(frozen=True)
class ShardRange:
    """Samples ``start`` to ``stop`` of the dataset make shard ``index``."""

    index: int
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


class ShardWriter:
    """Writes a set. Every rank creates a writer; after a barrier the first rank calls ``finish``.

    Complete shards of an earlier call are kept. A folder of another ``producer`` is an error.
    """

    def __init__(
        self,
        folder: str | Path,
        kind: str,
        total: int,
        shard_size: int,
        producer: Mapping[str, Any],
        codebook_size: int | None = None,
    ) -> None:
        if total < 1:
            raise UserError(
                f'there is nothing to write to {folder}: the dataset is empty', 'Look at the folder of the dataset.'
            )
        if shard_size < 1:
            raise UserError(f'shard_size is {shard_size}', 'Give 1 or more samples per shard.')
        self.folder = Path(folder)
        given: dict[str, Any] = plain(dict(producer))
        if codebook_size is not None:
            given.setdefault('codebook_size', codebook_size)
        self.manifest = Manifest(kind, total, shard_size, given)
        self.codebook_size: int | None = given.get('codebook_size')
        self._recorded: dict[str, str] = {}  # file -> SHA-256, if the set is complete
        self._claim()

    def _claim(self) -> None:
        if (self.folder / NAME).is_file():
            found = read_manifest(self.folder)
            check_producer(self.folder, found, self.manifest.producer, exact=True)
            for name in ('kind', 'total', 'shard_size'):
                there, here = getattr(found, name), getattr(self.manifest, name)
                if there != here:
                    raise UserError(
                        f"{self.folder} holds another set: '{name}' is {there!r} there and {here!r} here",
                        'Write into another folder, or with the settings of that set.',
                    )
            self._recorded = {entry.name: entry.sha256 for entry in found.shards}
        elif collectives.is_main():
            self.manifest.write(self.folder)
        if collectives.is_main():
            with disk_errors(self.folder / NAME):
                atomic.sweep(self.folder)

    def ranges(self) -> list[ShardRange]:
        size, total = self.manifest.shard_size, self.manifest.total
        return [ShardRange(k, k * size, min((k + 1) * size, total)) for k in range(self.manifest.shard_count)]

    def pending(self, rank: int | None = None, world: int | None = None) -> list[ShardRange]:
        """The shards that this rank has to write: those of its share that are missing, damaged or of another set."""
        rank = collectives.rank() if rank is None else rank
        world = collectives.size() if world is None else world
        return [
            part
            for part in self.ranges()
            if part.index % world == rank and not (self._is_written(part) and self._is_sound(self.path_of(part)))
        ]

    def path_of(self, part: ShardRange) -> Path:
        return self.folder / shard_name(part.index, self.manifest.shard_count)

    def write(
        self,
        part: ShardRange,
        columns: Mapping[str, Column],
        ids: Sequence[str],
        skipped: Sequence[str] = (),
        notes: Mapping[str, str] | None = None,
    ) -> None:
        """Write one shard: a row of every column for each of ``ids``. ``skipped`` lists the samples that cannot be read.

        ``notes``: more metadata of the file, which ``finish`` can sum up.
        """
        if len(ids) + len(skipped) != len(part):
            raise ValueError(f'shard {part.index} has {len(part)} samples, not {len(ids)} and {len(skipped)} skipped')
        if len({*ids, *skipped}) != len(part):
            raise UserError(f'shard {part.index} of {self.folder}: ids are not unique', 'Give every sample an id of its own.')
        arrays: dict[str, Array | Tensor] = {}
        for name, values in {**columns, 'id': [sample.encode() for sample in ids]}.items():
            found = self._arrays_of(name, values)
            rows = len(found[name + OFFSETS]) - 1 if name + OFFSETS in found else len(found[name])
            if rows != len(ids):
                raise ValueError(f"column '{name}' has {rows} rows, and there are {len(ids)} ids")
            arrays.update(found)
        with atomic.atomic_file(self.path_of(part), sum(array.nbytes for array in arrays.values())) as writer:
            tensorfile.write_tensors(writer, arrays, {**self._note(part, skipped), **(notes or {})})

    def finish(self, summed: Summed | None = None) -> Manifest:
        """On the first rank, after all have written: check that every shard exists, then write the complete manifest.

        ``summed``: makes the notes of the manifest of those of the shards, which it gets in order.
        """
        missing = [part for part in self.ranges() if not self._is_written(part)]
        if missing:
            raise RunFailure(
                f'{self.folder}: {len(missing)} of {self.manifest.shard_count} shards are missing: '
                f'{listing(self.path_of(part).name for part in missing)}',
                'Run the same command again: it writes the missing shards.',
            )
        paths = [self.path_of(part) for part in self.ranges()]
        with ThreadPoolExecutor(4) as pool:
            digests = list(pool.map(read_digest, paths))
        shards: list[ShardEntry] = []
        keys: list[int] = []
        notes: list[Mapping[str, str]] = []
        described: dict[str, dict[str, Any]] | None = None
        for path, digest in zip(paths, digests, strict=True):
            shard = Shard(path)
            if described is not None and shard.described != described:
                raise UserError(
                    f'{path} has other columns than the shards before it: {shard.described} after {described}',
                    'Delete the folder and write the set again.',
                )
            described = shard.described
            keys += map(hash, shard.ids())
            notes.append(shard.notes)
            shards.append(ShardEntry(path.name, len(shard), path.stat().st_size, digest, shard.skipped))
        self._check_once_only(paths, keys)
        self.manifest = dataclasses.replace(
            self.manifest,
            complete=True,
            shards=shards,
            columns=described or {},
            notes={} if summed is None else plain(summed(notes)),
        )
        self.manifest.write(self.folder)
        return self.manifest

    def _check_once_only(self, paths: list[Path], keys: list[int]) -> None:
        # takes 8 bytes per id: the ids themselves are compared only if their hashes are equal
        values, counts = np.unique(np.array(keys, np.int64), return_counts=True)
        doubtful = set(values[counts > 1].tolist())
        seen: set[str] = set()
        again = (sample for path in paths if doubtful for sample in Shard(path).ids() if hash(sample) in doubtful)
        for sample in again:
            if sample in seen:
                raise UserError(f"{self.folder}: the id '{sample}' occurs twice", 'Give every sample an id of its own.')
            seen.add(sample)

    def _note(self, part: ShardRange, skipped: Sequence[str] = ()) -> dict[str, str]:
        return {'vq.shard': self.manifest.note(part.index), 'vq.skipped': json.dumps(list(skipped))}

    def _is_written(self, part: ShardRange) -> bool:
        try:
            shard = Shard(self.path_of(part))
        except (UserError, OSError):
            return False  # missing or damaged: it is written again
        return shard.note == self._note(part)['vq.shard'] and len(shard) + len(shard.skipped) == len(part)

    def _is_sound(self, path: Path) -> bool:
        """Whether the file is as it was written: compared with the manifest of a complete set, or with its own digest."""
        recorded = self._recorded.get(path.name)
        try:
            if recorded is None:
                tensorfile.check_seal(path, tensorfile.read_header(path))
            sound = recorded is None or read_digest(path) == recorded
        except UserError:
            sound = False
        if not sound:
            logger.warning('%s is damaged: it is written again', path)
        return sound

    def _arrays_of(self, name: str, values: Column) -> Mapping[str, Array | Tensor]:
        if isinstance(values, list | tuple) and all(isinstance(value, bytes) for value in values):
            offsets = np.zeros(len(values) + 1, np.int64)
            np.cumsum([len(value) for value in values], out=offsets[1:])
            return {name + BYTES: np.frombuffer(b''.join(values), np.uint8), name + OFFSETS: offsets}
        if str(getattr(values, 'dtype', '')) == 'torch.bfloat16':
            return {name: values.detach().cpu()}
        array: Array = values if isinstance(values, np.ndarray) else _numpy(name, values)
        return {name: self._narrow(array) if self.manifest.kind == 'tokens' and name == 'tokens' else array}

    def _narrow(self, tokens: Array) -> Array:
        """Tokens (n, variants, *token_shape) as uint16 if the codebook is small enough, otherwise as uint32."""
        if self.codebook_size is None:
            raise ValueError('tokens need the codebook_size, as an argument or in the producer')
        if tokens.size and (int(tokens.min()) < 0 or int(tokens.max()) >= self.codebook_size):
            raise ValueError(f'tokens reach from {tokens.min()} to {tokens.max()}; there are {self.codebook_size} codes')
        producer = self.manifest.producer
        if 'token_shape' in producer and tokens.shape[2:] != tuple(producer['token_shape']):
            raise ValueError(f'tokens have the shape {tokens.shape}, and token_shape is {tuple(producer["token_shape"])}')
        if 'variants' in producer and tokens.shape[1] != len(producer['variants']):
            raise ValueError(f'tokens have {tokens.shape[1]} variants, and the producer names {producer["variants"]}')
        return tokens.astype(np.uint16 if self.codebook_size <= 1 << 16 else np.uint32)


def _numpy(name: str, values: Tensor) -> Array:
    import torch

    if not isinstance(values, torch.Tensor):
        raise TypeError(f"column '{name}' is {type(values)}: give an array, a tensor or a list of bytes")
    array: Array = values.detach().cpu().numpy()
    return array
