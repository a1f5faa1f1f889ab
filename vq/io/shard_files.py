"""Sharded tensors in a checkpoint folder: planned by torch.distributed.checkpoint, written as safetensors and JSON.

The index of torch's own file format is a pickle, and reading a pickle can run code. So only the planners are torch's: they
decide which rank writes which shard, and which parts a rank needs after the number of ranks has changed. The files are
``optimizer_R.safetensors`` with what rank R wrote, and ``optimizer.json`` with the place of each part of each tensor.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner, DefaultSavePlanner
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.planner import LoadPlan, LoadPlanner, SavePlan, SavePlanner
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.checkpoint.storage import StorageReader, StorageWriter, WriteResult
from torch.futures import Future

from vq.core import collectives
from vq.core.errors import RunFailure, UserError
from vq.core.reading import read_json
from vq.io import atomic, tensorfile
from vq.io.digest import file_digest
from vq.io.history import read_marker
from vq.io.writer import Writer

INDEX = 'optimizer.json'
LARGEST = 64_000_000  # bytes of the index; 1,000 tensors of 64 ranks take 7,000,000
_FILES = 'optimizer_{}.safetensors'

Files = dict[str, dict[str, Any]]  # name -> size, sha256
Place = tuple[str, tuple[int, ...]]  # name of a tensor, offsets of a part in it


def write(folder: Path, tensors: Mapping[str, Tensor]) -> Files:
    """Every rank writes its shards into ``folder``; replicated tensors are divided among the ranks. All ranks call it.

    An error on one rank is raised on all. Returns the files that this rank wrote.
    """
    writer = _Storage(folder)
    planner = DefaultSavePlanner(flatten_state_dict=False, flatten_sharded_tensors=False)
    with _quiet():
        try:
            save(dict(tensors), storage_writer=writer, planner=planner, no_dist=not torch.distributed.is_initialized())
        except CheckpointException as error:
            raise writer.error or _first(error) from error
    return writer.files


def describe(folder: Path) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
    """Name -> dtype and unsharded shape of each tensor that ``write`` stored."""
    metadata = _read_index(folder)[0].state_dict_metadata
    return {
        name: (entry.properties.dtype, tuple(entry.size))
        for name, entry in metadata.items()
        if isinstance(entry, TensorStorageMetadata)
    }


def read_into(folder: Path, tensors: Mapping[str, Tensor], verify: bool = True) -> None:
    """Fill ``tensors``, on each rank its own shards, whatever number of ranks wrote them. There are no collectives.

    Only files with parts that this rank needs are opened; ``verify`` compares their SHA-256 with the marker first.
    """
    planner = DefaultLoadPlanner(flatten_state_dict=False, flatten_sharded_tensors=False)
    with _quiet():
        try:
            load(dict(tensors), storage_reader=_Stored(folder, verify), planner=planner, no_dist=True)
        except CheckpointException as error:
            raise _first(error) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence torch's warning that there is only one process."""
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', message=r'torch\.distributed is (disabled|unavailable)')
        yield


def _first(error: CheckpointException) -> BaseException:
    rank, (cause, _) = min(error.failures.items())
    if isinstance(cause, UserError):
        return cause
    return RunFailure(f'rank {rank} failed at the sharded state: {type(cause).__name__}: {cause}', 'See its log.')


def _place(index: MetadataIndex) -> Place:
    return index.fqn, tuple(index.offset or ())


def _key(place: Place) -> str:
    return f'{place[0]}@{",".join(map(str, place[1]))}'


class _Storage(StorageWriter):
    """Writes one file per rank, and the index."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.name = folder, _FILES.format(collectives.rank())
        self.files: Files = {}
        self.error: BaseException | None = None  # of this rank

    def reset(self, checkpoint_id: Any = None) -> None: ...

    def set_up_storage_writer(self, is_coordinator: bool, *args: Any, **kwargs: Any) -> None: ...

    def prepare_local_plan(self, plan: SavePlan) -> SavePlan:
        return plan

    def prepare_global_plan(self, plans: list[SavePlan]) -> list[SavePlan]:
        return plans

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        tensors = {_key(_place(item.index)): planner.resolve_data(item) for item in plan.items}
        self._write(self.name, lambda writer: tensorfile.write_tensors(writer, tensors, sealed=False))  # type: ignore[arg-type]
        done: Future[list[WriteResult]] = Future()
        done.set_result([WriteResult(item.index, 0, self.name) for item in plan.items])
        return done

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        files = {_place(result.index): result.storage_data for written in results for result in written}
        index = {
            name: {
                'dtype': str(entry.properties.dtype).removeprefix('torch.'),
                'shape': list(entry.size),
                'parts': [
                    {'at': list(part.offsets), 'shape': list(part.sizes), 'file': files[name, tuple(part.offsets)]}
                    for part in entry.chunks
                ],
            }
            for name, entry in sorted(metadata.state_dict_metadata.items())
            if isinstance(entry, TensorStorageMetadata)
        }
        self._write(INDEX, lambda writer: writer.write(atomic.json_text(index).encode()))

    def _write(self, name: str, fill: Any) -> None:
        try:
            with Writer(self.folder / name) as writer:
                fill(writer)
        except Exception as error:
            self.error = error
            raise
        self.files[name] = {'size': writer.size, 'sha256': writer.sha256}

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: Any) -> bool:
        return True


class _Stored(StorageReader):
    """Reads the files of ``_Storage``."""

    def __init__(self, folder: Path, verify: bool) -> None:
        self.folder, self.verify = folder, verify
        self.metadata, self.files = _read_index(folder)

    def reset(self, checkpoint_id: Any = None) -> None: ...

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        return self.metadata

    def set_up_storage_reader(self, metadata: Metadata, is_coordinator: bool, *args: Any, **kwargs: Any) -> None: ...

    def prepare_local_plan(self, plan: LoadPlan) -> LoadPlan:
        return plan

    def prepare_global_plan(self, plans: list[LoadPlan]) -> list[LoadPlan]:
        return plans

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> Future[None]:
        from safetensors import SafetensorError, safe_open

        by_file: dict[str, list[Any]] = {}
        for item in plan.items:
            by_file.setdefault(self.files[_place(item.storage_index)], []).append(item)
        for name, items in sorted(by_file.items()):
            path = self._checked(name)
            try:
                with safe_open(path, 'pt') as file:
                    for item in items:
                        stored = file.get_tensor(_key(_place(item.storage_index)))
                        for dim, (start, length) in enumerate(zip(item.storage_offsets, item.lengths, strict=True)):
                            stored = stored.narrow(dim, start, length)
                        planner.resolve_tensor(item).detach().copy_(stored)
            except (SafetensorError, RuntimeError, IndexError) as error:
                raise tensorfile.damaged(path, str(error)) from error
        done: Future[None] = Future()
        done.set_result(None)
        return done

    def _checked(self, name: str) -> Path:
        path, marker = self.folder / name, read_marker(self.folder)
        noted = (marker or {'files': {}})['files'].get(name)
        if noted is None:
            raise tensorfile.damaged(self.folder / INDEX, f"it names '{name}', which is not a file of this checkpoint")
        if self.verify and file_digest(path) != noted.get('sha256'):
            raise tensorfile.damaged(path, 'its SHA-256 is not the one recorded when it was written')
        return path

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: Any) -> bool:
        return True


def _read_index(folder: Path) -> tuple[Metadata, dict[Place, str]]:
    """The index: torch's metadata of the tensors, and the file of each part."""
    path = folder / INDEX
    tensors: dict[str, Any] = {}
    files: dict[Place, str] = {}
    try:
        for name, entry in read_json(path, LARGEST).items():
            parts = [
                ChunkStorageMetadata(torch.Size(map(int, part['at'])), torch.Size(map(int, part['shape'])))
                for part in entry['parts']
            ]
            dtype = getattr(torch, entry['dtype'])
            if not isinstance(dtype, torch.dtype):
                raise TypeError(f"'{entry['dtype']}' is not a dtype of tensors")
            tensors[name] = TensorStorageMetadata(TensorProperties(dtype=dtype), torch.Size(map(int, entry['shape'])), parts)
            files |= {(name, tuple(part['at'])): str(part['file']) for part in entry['parts']}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise tensorfile.damaged(path, str(error)) from error
    return Metadata(tensors), files
