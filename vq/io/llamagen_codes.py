"""LlamaGen's token files, one of codes and one of the class per image: export from token shards, import into them.

``imagenet{S}_codes/{i}.npy`` int64 (1, variants, h * w) and ``imagenet{S}_labels/{i}.npy`` int64 (1,). LlamaGen's training
needs the numbers 0, 1, 2, ... without a gap, and these folder names for every dataset.
"""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vq.core.errors import ConfigError, UserError, listing
from vq.core.reading import read_bytes
from vq.io import atomic
from vq.io.digest import file_digest
from vq.io.exported import check_files, write_missing
from vq.io.manifest import NAME
from vq.io.shards import ShardSet, ShardWriter

WRITERS = 8  # threads: a file costs two fsyncs, which run well in parallel
LOOKED_AT = 64  # files that are hashed to identify a folder

Array = npt.NDArray[Any]


def folders(root: Path, image_size: int) -> tuple[Path, Path]:
    return root / f'imagenet{image_size}_codes', root / f'imagenet{image_size}_labels'


def export_codes(shards: ShardSet, root: Path, rank: int = 0, world: int = 1) -> int:
    """Write this rank's share of the missing files. Returns the number of samples written.

    File i is row i of the shards: the index in the dataset, unless images before it were skipped.
    """
    codes, labels = folders(root, int(shards.manifest.producer['image_size']))
    for folder in (codes, labels):
        folder.mkdir(parents=True, exist_ok=True)
    written = 0
    with ThreadPoolExecutor(WRITERS) as pool:
        for index in range(rank, len(shards.starts) - 1, world):
            rows = range(shards.starts[index], shards.starts[index + 1])
            tokens = shards.column('tokens')[rows.start : rows.stop].astype(np.int64)  # (n, variants, *token_shape)
            category = shards.column('category')[rows.start : rows.stop].astype(np.int64)
            if category.size and int(category.min()) < 0:
                raise UserError(
                    f'sample {shards[rows.start + int(category.argmin())]["id"]} has no class, and LlamaGen needs one',
                    'Write shards alone: --format shards.',
                )
            tokens = tokens.reshape(len(rows), 1, tokens.shape[1], -1)
            written += sum(
                pool.map(
                    lambda place: (
                        write_missing(codes / place[0], _npy(place[1])) | write_missing(labels / place[0], _npy(place[2]))
                    ),
                    ((f'{row}.npy', code, label) for row, code, label in zip(rows, tokens, category[:, None], strict=True)),
                )
            )
    return written


def finish(shards: ShardSet, root: Path) -> None:
    """On one rank, after all have written: check that every file exists, then write the manifest with the producer."""
    wanted = {f'{row}.npy' for row in range(len(shards))}
    for folder in folders(root, int(shards.manifest.producer['image_size'])):
        check_files(folder, wanted)
    atomic.write_json(
        root / NAME, {'count': len(shards), 'skipped': shards.manifest.skipped, 'producer': shards.manifest.producer}
    )


def _npy(array: Array) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.ascontiguousarray(array), allow_pickle=False)
    return stream.getvalue()


def import_codes(
    source: Path,
    output: Path,
    *,
    image_size: int,
    codebook_size: int,
    token_shape: tuple[int, ...],
    dataset: str = '',
    split: str = '',
    shard_size: int = 8192,
    weights_hash: str = '',
) -> ShardSet:
    """Convert LlamaGen's files to a set of token shards. ``source`` holds the two folders.

    ``weights_hash``: of the tokenizer that is said to have made them; '': the shards name no tokenizer.
    """
    codes, labels = folders(source, image_size)
    count = _count(codes, labels)
    first = _read(codes / '0.npy')
    if first.ndim != 3 or first.shape[0] != 1 or first.shape[2] != math.prod(token_shape):
        raise ConfigError(
            f'{codes / "0.npy"} has the shape {first.shape}, and tokens of this config are {tuple(token_shape)}: '
            f'(1, variants, {math.prod(token_shape)}) is expected',
            'Give the config of the tokenizer that made them, and their --image-size.',
        )
    variants = first.shape[1]
    # as LlamaGen's extraction writes them
    known = {1: ['center'], 2: ['center', 'flip'], 10: [f'crop{number}' for number in range(10)]}
    names = known.get(variants, [f'variant{number}' for number in range(variants)])
    producer = {
        'tokenizer_config_hash': '',
        'weights_hash': weights_hash,
        'codebook_size': codebook_size,
        'token_shape': list(token_shape),
        'image_size': image_size,
        'dataset': dataset,
        'split': split,
        'dataset_fingerprint': '',
        'variants': names,
        'random_weights': False,
        'converted_from': _digest(codes, labels, count),
    }
    writer = ShardWriter(output, kind='tokens', total=count, shard_size=shard_size, producer=producer)
    for part in writer.pending(0, 1):
        tokens, category = [], []
        for number in range(part.start, part.stop):
            found, label = _read(codes / f'{number}.npy'), _read(labels / f'{number}.npy')
            problem = next(_problems(found, label, first.shape, codebook_size), None)
            if problem is not None:
                raise UserError(f'sample {number} of {source}: {problem}', 'Copy the file again, or give the right config.')
            tokens.append(found[0].reshape(variants, *token_shape))
            category.append(int(label[0]))
        ids = [f'{number:07d}' for number in range(part.start, part.stop)]
        writer.write(part, {'tokens': np.stack(tokens), 'category': np.array(category, np.int64)}, ids)
    writer.finish()
    return ShardSet(output)


def _problems(found: Array, label: Array, shape: tuple[int, ...], codebook_size: int) -> Iterator[str]:
    if found.shape != shape or found.dtype.kind not in 'iu':
        yield f'its codes are {found.dtype} {found.shape}, those of sample 0 are {shape}'
    elif int(found.min()) < 0 or int(found.max()) >= codebook_size:
        yield f'its codes reach from {found.min()} to {found.max()}, and the codebook has {codebook_size}'
    if label.shape != (1,) or label.dtype.kind not in 'iu':
        yield f'its label is {label.dtype} {label.shape}, not one whole number'


def _count(codes: Path, labels: Path) -> int:
    counts = []
    for folder in (codes, labels):
        names = {path.name for path in folder.glob('*.npy')}  # empty if the folder does not exist
        if not names:
            raise UserError(
                f'there are no files 0.npy, 1.npy, ... in {folder}',
                'Give the folder that holds imagenet{S}_codes and imagenet{S}_labels, and S: --image-size S.',
            )
        missing = {f'{number}.npy' for number in range(len(names))} - names
        if missing:
            raise UserError(
                f'{folder} has {len(names)} files that are not numbered 0 to {len(names) - 1}: {listing(missing)} is missing',
                'Copy all of them.',
            )
        counts.append(len(names))
    if counts[0] != counts[1]:
        raise UserError(f'{codes} has {counts[0]} files and {labels} has {counts[1]}', 'Copy all of them.')
    return counts[0]


def _digest(codes: Path, labels: Path, count: int) -> str:
    """A hash of the number of files and of the contents of some. Hashing all of them would double the time of the import."""
    digest = hashlib.sha256(f'{count}\n'.encode())
    for number in sorted({*range(0, count, max(1, count // LOOKED_AT)), count - 1}):
        for folder in (codes, labels):
            digest.update(f'{file_digest(folder / f"{number}.npy")}\n'.encode())
    return digest.hexdigest()


def _read(path: Path) -> Array:
    try:
        array: Array = np.load(io.BytesIO(read_bytes(path)), allow_pickle=False)
    except (OSError, ValueError, EOFError, MemoryError) as error:
        raise UserError(f'{path} cannot be read as an array: {error}', 'Copy the file again.') from error
    return array
