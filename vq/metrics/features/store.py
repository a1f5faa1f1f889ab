"""Features of the distinct samples of a pass: statistics, and rows if a metric needs them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from vq.core import collectives
from vq.core.errors import UserError
from vq.interfaces import Features
from vq.metrics.features.statistics import FeatureStatistics, Moments, joined_over_ranks

CHUNK = 1024  # rows per device-to-host copy, and per exchange between ranks
BUDGET = 2 * 2**30


@dataclasses.dataclass
class _Chunk:
    """Rows on the host, of samples that are new on this rank."""

    keys: Tensor  # (b,) int64
    columns: dict[str, Tensor]  # name -> (b, D)

    @property
    def size(self) -> int:
        return sum(column.numel() * column.element_size() for column in self.columns.values())

    def select(self, mask: Tensor) -> _Chunk:
        if bool(mask.all()):
            return self
        return _Chunk(self.keys[mask], {name: column[mask] for name, column in self.columns.items()})


class FeatureStore:
    """Collects features batch by batch. The result does not depend on batch size, order or number of ranks.

    ``statistics`` are the fields of ``Features`` with mean and covariance, ``keep`` those with rows, kept in ``dtype``. A
    sample counts once, by its key, on any rank and in any batch; its first occurrence counts.

    **Host syncs.** Batches stay on the device until there are ``CHUNK`` rows. These are copied to the host asynchronously.
    The copy is read when the next chunk is sent, and has long finished by then.

    **Repeated samples and memory.** Statistics are sums, and a sample cannot be subtracted without its features. Within a
    rank repeats are found before a row is added, since the keys (8 bytes each) of all previous samples are stored. So on
    one rank, or under XLA, where one program has all samples, rows are added at once, and memory does not depend on their
    number. With several ranks only the end of the pass shows whether another rank had the same key. So rows are buffered
    until then, up to ``budget`` bytes per rank (2 GiB: 262,144 rows of 2,048 numbers in fp32); beyond that the oldest rows
    are added. At the end ranks exchange keys. A sample belongs to the rank that has added it, else to the lowest rank that
    buffers it; other ranks drop it. A sample that two ranks have already added is an error, as the sums cannot be
    corrected. Ids are unique within a split, so an evaluation plan assigns each to one rank. Therefore ``budget=0`` works
    with any number of ranks, with memory independent of the number of samples; the exchange of keys then only verifies
    that no sample was repeated.

    Kept rows stay in memory until the end: 50,000 of 2,048 take 410 MB in fp32, 205 MB in fp16, over all ranks.
    """

    def __init__(
        self,
        statistics: Sequence[str] = ('pooled',),
        keep: Sequence[str] = (),
        dtype: torch.dtype = torch.float32,
        budget: int = BUDGET,
    ) -> None:
        unknown = {*statistics, *keep} - set(Features._fields)
        if unknown:
            raise ValueError(f'features have no {sorted(unknown)}')
        self.names = tuple(name for name in Features._fields if name in {*statistics, *keep})
        self.statistics, self.keep, self.dtype, self.budget = tuple(statistics), tuple(keep), dtype, budget
        self.reset()

    def reset(self) -> None:
        self._on_device: list[tuple[Tensor, dict[str, Tensor]]] = []
        self._rows_on_device = 0
        self._travelling: tuple[_Chunk, torch.cuda.Event | None] | None = None
        self._seen = torch.empty(0, dtype=torch.int64)  # sorted
        self._samples = 0  # number of samples, with repeats
        self._added = torch.empty(0, dtype=torch.int64)  # keys of rows that are in the sums
        self._waiting: list[_Chunk] = []
        self._kept: list[_Chunk] = []
        self._sums: dict[str, FeatureStatistics] = {}

    def add(self, keys: Tensor, features: Features) -> None:
        """Add keys (B,) int64 and the features of these samples, without a host sync."""
        columns = {}
        for name in self.names:
            column = getattr(features, name)
            if column is None:
                raise UserError(f"the network has no '{name}' features", 'Leave out the metrics that need them.')
            columns[name] = column.detach().flatten(1)
        self._on_device.append((keys, columns))
        self._rows_on_device += len(keys)
        if self._rows_on_device >= CHUNK:
            self._send()

    def _send(self) -> None:
        """Start the copy of a chunk to the host, and process the previous chunk."""
        if self._on_device:
            keys = torch.cat([keys for keys, _ in self._on_device])
            columns = {name: torch.cat([columns[name] for _, columns in self._on_device]) for name in self.names}
            self._on_device, self._rows_on_device = [], 0
            event = None
            on_gpu = any(column.is_cuda for column in columns.values())
            chunk = _Chunk(
                keys.to('cpu', non_blocking=on_gpu),
                {name: column.to('cpu', non_blocking=on_gpu) for name, column in columns.items()},
            )
            if on_gpu:
                event = torch.cuda.Event()  # type: ignore[no-untyped-call]
                event.record()  # type: ignore[no-untyped-call]
            self._arrive()
            self._travelling = chunk, event

    def _arrive(self) -> None:
        if self._travelling is None:
            return
        chunk, event = self._travelling
        self._travelling = None
        if event is not None:
            event.synchronize()
            # out of pinned memory, which is needed for further copies
            chunk = _Chunk(chunk.keys.clone(), {name: column.clone() for name, column in chunk.columns.items()})
        self._samples += len(chunk.keys)
        self._take(chunk.select(self._first_time(chunk.keys)))

    def _first_time(self, keys: Tensor) -> Tensor:
        """A mask (b,) of rows with new keys. The keys are then recorded as seen."""
        ordered, order = torch.sort(keys, stable=True)
        first = torch.ones_like(ordered, dtype=torch.bool)
        first[1:] = ordered[1:] != ordered[:-1]
        first &= ~_contains(self._seen, ordered)
        self._seen = torch.sort(torch.cat([self._seen, ordered[first]])).values
        mask = torch.empty_like(first)
        mask[order] = first
        return mask

    def _take(self, chunk: _Chunk) -> None:
        if self.keep:
            rows = {name: chunk.columns[name].to(self.dtype) for name in self.keep}
            self._kept.append(_Chunk(chunk.keys, rows))
        if not self.statistics:
            return
        self._waiting.append(_Chunk(chunk.keys, {name: chunk.columns[name] for name in self.statistics}))
        budget = self.budget if collectives.size() > 1 else 0
        while self._waiting and sum(waiting.size for waiting in self._waiting) > budget:
            oldest = self._waiting.pop(0)
            self._added = torch.cat([self._added, oldest.keys])
            self._sum_up(oldest)

    def _sum_up(self, chunk: _Chunk) -> None:
        for name, column in chunk.columns.items():
            if name not in self._sums:
                self._sums[name] = FeatureStatistics(column.shape[1])
            self._sums[name].update(column)

    def finish(self) -> Collected:
        """The result of the pass over all ranks. A collective: every rank calls it once. It empties the store."""
        self._send()
        self._arrive()
        parts = collectives.all_gather_object((self._seen, torch.sort(self._added).values, self._samples))
        owned = _owned([part[0] for part in parts], [part[1] for part in parts], collectives.rank())
        for chunk in self._waiting:
            self._sum_up(chunk.select(_contains(owned, chunk.keys)))
        moments = {}
        keys = torch.unique(torch.cat([part[0] for part in parts]))
        for name in self.statistics:
            joined = joined_over_ranks(self._sums.get(name))
            if joined is None:
                raise UserError('there is no image to take features of', 'Give a folder or a dataset with images.')
            moments[name] = joined.compute()
        kept = [chunk.select(_contains(owned, chunk.keys)) for chunk in self._kept]
        repeated = sum(part[2] for part in parts) - len(keys)
        self.reset()
        return Collected(keys, repeated, moments, kept, self.keep)

    def state_dict(self) -> dict[str, Tensor]:
        """The state of this rank, to resume with the same number of ranks."""
        self._send()
        self._arrive()
        state = {'seen': self._seen, 'added': self._added, 'samples': torch.tensor(self._samples)}
        for kind, chunks in (('waiting', self._waiting), ('kept', self._kept)):
            if chunks:
                state[f'{kind}.keys'] = torch.cat([chunk.keys for chunk in chunks])
                for name in chunks[0].columns:
                    state[f'{kind}.column.{name}'] = torch.cat([chunk.columns[name] for chunk in chunks])
        for name, sums in self._sums.items():
            state |= {f'sums.{name}.{key}': value for key, value in sums.state_dict().items()}
        return state

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.reset()
        self._seen, self._added, self._samples = state['seen'], state['added'], int(state['samples'])
        self._waiting, self._kept = ([*_unpacked(state, kind)] for kind in ('waiting', 'kept'))
        for name in self.statistics:
            if f'sums.{name}.mean' in state:
                own = {key: state[f'sums.{name}.{key}'] for key in ('count', 'broken', 'mean', 'scatter')}
                self._sums[name] = FeatureStatistics(len(own['mean']))
                self._sums[name].load_state_dict(own)


@dataclasses.dataclass
class Collected:
    """The distinct samples of a pass over all ranks."""

    keys: Tensor  # (n,) int64, sorted
    repeated: int  # number of rows dropped as repeats
    moments: dict[str, Moments]  # of the fields in ``statistics``
    _kept: list[_Chunk]  # kept rows of this rank
    _names: tuple[str, ...]

    @property
    def count(self) -> int:
        return len(self.keys)

    def rows(self, name: str, everywhere: bool = False) -> Tensor | None:
        """The kept rows (n, D) in the order of ``keys``, on the main rank or ``everywhere``; None on the others.

        A collective. Rows are exchanged in chunks of ``CHUNK``, so a rank that returns None never holds all of them.
        """
        if name not in self._names:
            raise ValueError(f"rows of '{name}' were not kept")
        rows: Tensor | None = None
        wanted = everywhere or collectives.is_main()
        for index in range(max(collectives.all_gather_object(len(self._kept)))):
            mine = (self._kept[index].keys, self._kept[index].columns[name]) if index < len(self._kept) else None
            for part in collectives.all_gather_object(mine):
                if wanted and part is not None:
                    keys, column = part
                    rows = column.new_empty(self.count, column.shape[1]) if rows is None else rows
                    rows[torch.searchsorted(self.keys, keys)] = column
        if not wanted:
            return None
        if rows is None:
            raise UserError('there is no image to take features of', 'Give a folder or a dataset with images.')
        if rows.dtype == torch.float16 and bool(rows.isinf().any()):
            raise UserError(f"'{name}' features are too large for fp16", 'Keep them in fp32.')
        return rows


def _contains(known: Tensor, keys: Tensor) -> Tensor:
    """A mask of those keys (b,) that are among known (n,), which is sorted."""
    if not len(known):
        return torch.zeros_like(keys, dtype=torch.bool)
    place = torch.searchsorted(known, keys).clamp_max_(len(known) - 1)
    return known[place] == keys


def _owned(seen: Sequence[Tensor], added: Sequence[Tensor], rank: int) -> Tensor:
    """The sorted keys that count on ``rank``: those it has added, and those seen there that no other rank has added and no
    lower rank has seen.
    """
    everything = torch.cat(list(added))
    twice = len(everything) - len(torch.unique(everything))
    if twice:
        raise UserError(
            f'{twice:,} samples were on several ranks, and their features were already summed',
            'Make ids unique within the dataset, use one rank, or give the feature store a larger budget.',
        )
    mine = seen[rank]
    taken = torch.zeros_like(mine, dtype=torch.bool)
    for other in range(len(seen)):
        if other != rank:
            taken |= _contains(added[other], mine)
        if other < rank:
            taken |= _contains(seen[other], mine)
    return mine[~taken | _contains(added[rank], mine)]


def _unpacked(state: Mapping[str, Tensor], kind: str) -> list[_Chunk]:
    """Chunks as ``state_dict`` wrote them."""
    if f'{kind}.keys' not in state:
        return []
    prefix = f'{kind}.column.'
    names = [name.removeprefix(prefix) for name in state if name.startswith(prefix)]
    parts = torch.split(state[f'{kind}.keys'], CHUNK)
    columns = {name: torch.split(state[prefix + name], CHUNK) for name in names}
    return [_Chunk(keys, {name: columns[name][index] for name in names}) for index, keys in enumerate(parts)]
