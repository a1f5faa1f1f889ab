"""Latents as others store them: the layouts of their files, and the export of a latent cache to these.

============ ======================================== =====================================================================
layout       files                                    content
============ ======================================== =====================================================================
npz          CLASS/NAME.npz, one an image             ``moments`` (2C, h, w) float32, ``moments_flip`` of the mirror image
npz          NAME.npz, one an image                   ``latent`` (C, h, w), ``condition``: the class; without variance
pt           CLASS/NAME.pt, one an image              ``moments``, ``moments_flip`` float16
ptshard      shard_00000.pt, some images each         ``moments`` (n, 2C, h, w), ``moments_flip`` float16, ``labels`` (n,)
============ ======================================== =====================================================================

Moments are the mean and the log variance, concatenated. Classes are the numbers of their folders in sorted order. Our files
also have the ids, as ``id`` or ``ids``, which other readers ignore.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from vq.core.errors import UserError
from vq.io import atomic
from vq.io.exported import check_files, write_missing
from vq.io.manifest import NAME
from vq.io.shards import ShardSet

Format = Literal['npz', 'pt', 'ptshard']
FORMATS: tuple[Format, ...] = ('npz', 'pt', 'ptshard')
WRITERS = 8  # threads: a file costs two fsyncs, which run well in parallel

Array = npt.NDArray[Any]


def check_exportable(shards: ShardSet, layout: Format) -> None:
    """Raise before anything is written if files of this layout cannot hold the latents."""
    columns, variants = shards.manifest.columns, shards.manifest.producer.get('variants')
    if 'logvar' not in columns and layout != 'npz':
        raise UserError(
            f'the latents in {shards.folder} have no variance, and files of the format {layout} need one', 'Give --format npz.'
        )
    if 'logvar' in columns and variants != ['center', 'flip']:
        raise UserError(
            f'the latents in {shards.folder} are those of {variants}, and these files hold an image and its mirror image',
            'Write the cache without --no-mirror.',
        )
    category = shards.column('category')
    for start in range(0, len(shards), 65536):
        rows = category[start : start + 65536]
        if int(rows.min()) < 0:
            raise UserError(
                f'sample {shards[start + int(rows.argmin())]["id"]} has no class, and files of the format {layout} need one',
                'Keep the format vq, which does not.',
            )


def export(shards: ShardSet, root: Path, layout: Format, size: int, rank: int, world: int, tell: Callable[[int], None]) -> int:
    """Write this rank's share of the missing files; returns their number. ``size``: images per file of ptshard."""
    names = folders_of(shards)
    written = 0
    with ThreadPoolExecutor(WRITERS) as pool:
        for number in range(rank, -(-len(shards) // size), world):
            rows = range(number * size, min((number + 1) * size, len(shards)))
            if layout == 'ptshard':
                files = [(f'shard_{number:05d}.pt', torch_bytes(stacked(shards, rows)))]
            else:
                files = list(images_of(shards, rows, layout, names))
            written += sum(pool.map(lambda file: write_missing(root / file[0], file[1]), files))
            tell(len(rows))
    return written


def finish(shards: ShardSet, root: Path, layout: Format, size: int) -> None:
    """On one rank, after all have written: check that every file exists, then write the manifest with the producer."""
    if layout == 'ptshard':
        wanted = {f'shard_{number:05d}.pt' for number in range(-(-len(shards) // size))}
    else:
        names, categories = folders_of(shards), shards.column('category')[:].tolist()
        plain = 'logvar' not in shards.manifest.columns
        wanted = {
            name_of(sample, category, names, layout, plain) for sample, category in zip(shards.ids(), categories, strict=True)
        }
    check_files(root, wanted)
    about = {'format': layout, 'count': len(shards), 'skipped': shards.manifest.skipped}
    atomic.write_json(root / NAME, {**about, 'producer': shards.manifest.producer})


def folders_of(shards: ShardSet) -> list[str]:
    """The folder of each class: its name if the names sort in the order of the classes, otherwise its number.

    Readers number the folders in sorted order.
    """
    names = shards.manifest.notes.get('categories')
    known = [str(name) for name in names] if isinstance(names, list) else []
    count = max(len(known), int(shards.column('category')[:].max()) + 1)
    safe = all(re.fullmatch(r'[\w-][\w .-]*', name) for name in known)
    if len(known) == count and safe and sorted(set(known)) == known:
        return known
    return [f'{number:05d}' for number in range(count)]


def name_of(sample: str, category: int, names: list[str], layout: Format, plain: bool) -> str:
    """The file of one image. Other characters of an id than those of file names become '_'; a hash keeps names unique."""
    kept = ''.join(letter if letter.isalnum() or letter in '-_.' else '_' for letter in sample).lstrip('.')
    if kept != sample or len(kept) > 100:
        kept = f'{kept[-80:].lstrip(".")}-{hashlib.blake2b(sample.encode(), digest_size=4).hexdigest()}'
    return f'{kept}.{layout}' if plain else f'{names[category]}/{kept}.{layout}'


def moments_of(shards: ShardSet, rows: range, kind: type) -> Array:
    """(n, variants, 2C, *cells)."""
    parts = [shards.column(name)[rows.start : rows.stop] for name in ('mean', 'logvar')]
    return np.concatenate(parts, axis=2).astype(kind)


def stacked(shards: ShardSet, rows: range) -> dict[str, Any]:
    moments = torch.from_numpy(moments_of(shards, rows, np.float16))
    return {
        'moments': moments[:, 0].contiguous(),
        'moments_flip': moments[:, 1].contiguous(),
        'labels': torch.from_numpy(shards.column('category')[rows.start : rows.stop].astype(np.int64)),
        'ids': [shards[row]['id'] for row in rows],
    }


def images_of(shards: ShardSet, rows: range, layout: Format, names: list[str]) -> Iterator[tuple[str, bytes]]:
    """(name, content) of the file of each image."""
    plain = 'logvar' not in shards.manifest.columns
    ids, categories = [shards[row]['id'] for row in rows], shards.column('category')[rows.start : rows.stop].tolist()
    values = shards.column('mean')[rows.start : rows.stop] if plain else moments_of(shards, rows, np.float32)
    for value, sample, category in zip(values, ids, categories, strict=True):
        name = name_of(sample, category, names, layout, plain)
        if plain:
            yield name, npz_bytes(latent=value[0], condition=np.int64(category), id=np.str_(sample))
        elif layout == 'npz':
            yield name, npz_bytes(moments=value[0], moments_flip=value[1], id=np.str_(sample))
        else:
            flat = torch.from_numpy(value.astype(np.float16))
            yield name, torch_bytes({'moments': flat[0].clone(), 'moments_flip': flat[1].clone(), 'id': sample})


def npz_bytes(**arrays: Any) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **arrays)  # plain types: nothing is pickled
    return stream.getvalue()


def torch_bytes(value: dict[str, Any]) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream)
    return stream.getvalue()
