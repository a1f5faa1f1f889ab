"""One row of a set of shards, in words and as a picture: packed images, tokens or latents.

SHARDS is the folder of a set, or one that holds the splits of a set, as vq data pack and vq data latents write them. The row
is compared with its checksum. --verify reads all files of the set and compares them with the manifest.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vq.cli import data_source
from vq.core.errors import UserError

if TYPE_CHECKING:
    from vq.io.shards import ShardSet

MOST = 6  # values that a line shows


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('shards', metavar='SHARDS', type=Path, help='the folder of a set, which holds manifest.json')
    parser.add_argument('--index', type=int, default=0, metavar='N', help='number of the row (default: 0)')
    parser.add_argument('--split', help='of a folder with several sets (default: the first)')
    parser.add_argument('--verify', action='store_true', help='compare all files with their checksums')
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs'), help='where the picture is written')


def run(options: argparse.Namespace) -> int:
    from vq.io.packed import KIND
    from vq.io.shards import ShardSet

    folder = find_set(options.shards, options.split)
    shards = ShardSet(folder, by_row=True)
    manifest = shards.manifest
    if not -len(shards) <= options.index < len(shards):
        raise UserError(
            f'there is no row {options.index}: {folder} has {len(shards)}',
            f'--index is a number from 0 to {len(shards) - 1}.',
        )
    index = options.index % len(shards)
    print(f'{folder}: {manifest.kind}, {len(shards):,} rows in {len(manifest.shards)} shards')
    for name, value in manifest.producer.items():
        print(f'  {name}: {shortened(value)}')
    if manifest.skipped:
        print(f'  left out: {len(manifest.skipped)} samples that could not be read, such as {manifest.skipped[0]}')
    if options.verify:
        shards.verify()
        print('  all files have the SHA-256 of the manifest')
    if manifest.kind == KIND:
        _show_image(folder, index, options.work_dir)
    else:
        _show_columns(shards, index)
    return 0


def find_set(folder: Path, split: str | None) -> Path:
    """The folder of a set: the given one, or one of the splits in it."""
    from vq.io.beton import refuse_beton
    from vq.io.manifest import NAME
    from vq.io.packed import splits_in

    refuse_beton(folder)
    if split is None and (folder / NAME).is_file():
        return folder
    there = splits_in(folder)
    found = [*sorted(folder.glob(f'*/{NAME}')), *sorted(folder.glob(f'*/latents/{NAME}'))]  # the second: of vq data latents
    there += [name for path in found if (name := path.parent.relative_to(folder).as_posix()) not in there]
    split = f'{split}/latents' if split not in there and f'{split}/latents' in there else split
    if not there or (split is not None and split not in there):
        what = f'has {", ".join(there)}' if there else 'has no manifest.json' if folder.is_dir() else 'is no folder'
        raise UserError(
            f'there is no set of shards{"" if split is None else f" {split}"} in {folder}: it {what}',
            'Give a folder that vq data pack, vq data latents or vq tokenize wrote.',
        )
    return folder / (split or there[0])


def _show_image(folder: Path, index: int, work_dir: Path) -> None:
    from PIL import Image

    from vq.data.datasets.packed import PackedDataset
    from vq.io import atomic
    from vq.io.packed import FILE

    dataset = PackedDataset(folder.parent, folder.name)
    shard, place = dataset.shards.find(index)
    row, sample = dataset.row(index), dataset.original(index)
    stored = 'JPEG' if row.form == FILE else 'pixels'
    category, names = sample['category'], dataset.categories
    called = f' ({names[category]})' if names is not None and category is not None and category < len(names) else ''
    print(f'row {index}: {row.id}')
    print(f'  in {shard.path.name}, row {place}; its CRC-32 is right')
    print(f'  {row.size[1]} x {row.size[0]}, {len(row.image):,} bytes of {stored}; class: {category}{called}')
    _show_values({name: sample[name] for name in sample if name not in ('id', 'image', 'category')})
    stream = io.BytesIO()
    Image.fromarray(sample['image']).save(stream, 'PNG')
    picture = data_source.work_folder(work_dir, f'{folder.resolve().parent.name}_{folder.name}') / f'look_{index}.png'
    picture.parent.mkdir(parents=True, exist_ok=True)
    atomic.write_bytes(picture, stream.getvalue())
    print(f'picture: {picture}')


def _show_columns(shards: ShardSet, index: int) -> None:
    shard, place = shards.find(index)
    row = shards[index]
    print(f'row {index}: {row["id"]}')
    print(f'  in {shard.path.name}, row {place}')
    _show_values({name: value for name, value in row.items() if name != 'id'})


def _show_values(values: Mapping[str, Any]) -> None:
    import numpy as np

    for name, value in values.items():
        if isinstance(value, bytes):
            print(f'  {name}: {len(value):,} bytes')
        elif isinstance(value, np.ndarray) and value.size > MOST:
            array = value.astype(np.float64) if value.dtype.kind == 'f' else value
            print(f'  {name}: {value.shape} {value.dtype}, {array.min():g} to {array.max():g}, mean {array.mean():.4g}')
        else:
            print(f'  {name}: {shortened(value.tolist() if isinstance(value, np.ndarray | np.generic) else value)}')


def shortened(value: Any) -> str:
    if isinstance(value, list) and len(value) > MOST:
        return f'{", ".join(map(str, value[:3]))}, ... ({len(value)} in all)'
    text = str(value)
    return text if len(text) <= 100 else f'{text[:97]}...'
