"""The reference toolkit's token files, ``{iteration}_{rank}.pth``, as a set of token shards.

Each file is a dict of ``id_`` (a list of text), ``category`` (B,) and ``tokens`` (B, h, w). Ranks had shares of equal size,
padded with samples of other ranks. So samples occur twice, and only the first of each id is kept.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from vq.core.errors import UserError, listing
from vq.io import plain
from vq.io.digest import file_digest
from vq.io.shards import ShardWriter

_NAME = re.compile(r'(\d+)_(\d+)\.pth')
Array = npt.NDArray[Any]


@dataclasses.dataclass(frozen=True)
class TokenReport:
    """Counts of a conversion."""

    files: int
    samples: int
    duplicates: int
    differing: int  # duplicates whose tokens differ from those of the first sample with that id
    token_shape: tuple[int, ...]
    shards: int


@dataclasses.dataclass(frozen=True)
class _File:
    ids: list[str]
    category: Array  # (B,) int64
    tokens: Array  # (B, h, w) int32


def convert(
    folder: Path,
    output: Path,
    *,
    codebook_size: int,
    image_size: int = 256,
    dataset: str = '',
    split: str = '',
    shard_size: int = 8192,
) -> TokenReport:
    """Write the tokens of ``folder`` to the shard set ``output``, sorted by id."""
    paths = _list_files(folder)
    files: list[_File] = []
    places: dict[str, tuple[int, int]] = {}  # id -> file, row
    duplicates = differing = 0
    shape: tuple[int, ...] | None = None
    for path in paths:
        file = _read(path, codebook_size, shape)
        shape = file.tokens.shape[1:]
        for row, sample in enumerate(file.ids):
            if sample in places:
                first, there = places[sample]
                duplicates += 1
                kept = file if first == len(files) else files[first]
                differing += not np.array_equal(kept.tokens[there], file.tokens[row])
            else:
                places[sample] = len(files), row
        files.append(file)
    assert shape is not None
    source = hashlib.sha256()
    for path in paths:
        source.update(f'{path.name} {file_digest(path)}\n'.encode())
    producer = {
        'tokenizer_config_hash': '',
        'weights_hash': '',
        'codebook_size': codebook_size,
        'token_shape': list(shape),
        'image_size': image_size,
        'dataset': dataset,
        'split': split,
        'dataset_fingerprint': '',
        'variants': ['center'],
        'random_weights': False,
        'converted_from': source.hexdigest(),
    }
    ids = sorted(places)
    writer = ShardWriter(output, kind='tokens', total=len(ids), shard_size=shard_size, producer=producer)
    for part in writer.pending(0, 1):
        chosen = ids[part.start : part.stop]
        rows = [places[sample] for sample in chosen]
        tokens = np.stack([files[index].tokens[row] for index, row in rows])[:, None]  # (n, 1 variant, h, w)
        category = np.array([files[index].category[row] for index, row in rows], np.int64)
        writer.write(part, {'tokens': tokens, 'category': category}, chosen)
    writer.finish()
    return TokenReport(len(paths), len(ids), duplicates, differing, shape, len(writer.ranges()))


def _list_files(folder: Path) -> list[Path]:
    """All files, sorted by iteration and rank. It is an error if an iteration lacks the file of a rank."""
    if not folder.is_dir():
        raise UserError(f'{folder} is not a folder', 'Give the folder that holds the files ITERATION_RANK.pth.')
    found = {(int(name[1]), int(name[2])): path for path in folder.iterdir() if (name := _NAME.fullmatch(path.name))}
    if not found:
        there = listing(path.name for path in folder.iterdir())
        raise UserError(f'{folder} has no files ITERATION_RANK.pth', f'It has: {there or "nothing"}.')
    ranks = sorted({rank for _, rank in found})
    iterations = [iteration for iteration, _ in found]
    wanted = ((iteration, rank) for iteration in range(min(iterations), max(iterations) + 1) for rank in ranks)
    missing = [f'{iteration}_{rank}.pth' for iteration, rank in wanted if (iteration, rank) not in found]
    if missing:
        raise UserError(
            f'{folder}: {len(missing)} files are missing: {listing(missing)}', 'Copy all of them; each holds its own samples.'
        )
    return [found[place] for place in sorted(found)]


def _read(path: Path, codebook_size: int, shape: tuple[int, ...] | None) -> _File:
    value = plain.read_torch(path)
    problem = next(_problems(value, codebook_size, shape), None)
    if problem is not None:
        raise UserError(f'{path} {problem[0]}', problem[1])
    tokens, category = value['tokens'], value.get('category')
    return _File(
        list(value['id_']),
        np.full(len(tokens), -1, np.int64) if category is None else category.long().numpy(),
        tokens.int().numpy(),
    )


def _problems(value: Any, codebook_size: int, shape: tuple[int, ...] | None) -> Iterator[tuple[str, str]]:
    if not isinstance(value, dict) or not {'id_', 'tokens'} <= set(value):
        there = listing(map(str, value)) if isinstance(value, dict) else type(value).__name__
        yield f'holds no tokens: {there}', "A token file is a dict of 'id_', 'category' and 'tokens'."
        return
    ids, tokens, category = value['id_'], value['tokens'], value.get('category')
    if not isinstance(tokens, Tensor) or tokens.ndim < 2 or tokens.is_floating_point():
        yield 'has tokens that are not a tensor of whole numbers, one row per sample', 'Write the file again.'
        return
    if not isinstance(ids, list) or not all(isinstance(name, str) for name in ids) or len(ids) != len(tokens):
        yield f'has {len(tokens)} rows of tokens, and its ids are not a list of as many texts', 'Write the file again.'
    if category is not None and not (isinstance(category, Tensor) and category.shape == (len(tokens),)):
        yield 'does not have one category per sample', 'Write the file again.'
    if shape is not None and tuple(tokens.shape[1:]) != tuple(shape):
        yield (
            f'has tokens of {tuple(tokens.shape[1:])}, the files before it of {tuple(shape)}',
            'Convert each set of files separately.',
        )
    if tokens.numel() and (int(tokens.min()) < 0 or int(tokens.max()) >= codebook_size):
        yield (
            f'has tokens from {int(tokens.min())} to {int(tokens.max())}, and the codebook has {codebook_size} codes',
            'Give the size of their codebook: --options codebook_size:N.',
        )
