"""Visual Genome: one HDF5 file per split and a vocabulary, from the published JSON, by the thresholds of the literature.

Names are those with at least ``MIN_COUNT`` objects in the training images, aliases joined. Objects have sides of at least
``MIN_SIDE`` pixels, images ``FEWEST`` to ``MOST`` objects. These are the values of sg2im, which drops images without
relationships too; its list of splits can be given, otherwise a hash of the image's id decides.

A file has, for N images and rows padded with -1: ``image_ids`` (N,), ``image_paths`` (N,), ``objects_per_image`` (N,),
``object_ids``, ``object_names`` (N, MOST), ``object_boxes`` (N, MOST, 4) as x, y, width, height in pixels. Names are places in
``object_idx_to_name`` of ``vocab.json``, whose first is ``__image__``.
"""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from vq.core.errors import UserError
from vq.core.reading import read_bytes, read_json
from vq.data.prepare.work import Work, placed
from vq.io.atomic import write_json
from vq.io.json_stream import elements

MIN_COUNT, MIN_SIDE, FEWEST, MOST = 2000, 32, 3, 30
SPLITS = ('train', 'val', 'test')
SHARES = {'test': 0.1, 'val': 0.2}  # upper ends of the hash
WHOLE = '__image__'
LARGEST = 100_000_000  # bytes of a list of splits
NOTE = 'prepared.json'

Object = tuple[int, int, tuple[int, int, int, int]]  # id, name, box


@dataclasses.dataclass(frozen=True)
class Photograph:
    split: str
    path: str  # below images/
    width: int
    height: int


def prepare(work: Work) -> None:
    raw = work.folder / 'raw'
    note = _note(work)
    if _is_done(work.folder, note):
        work.say(f'vg: {", ".join(f"{split}.h5" for split in SPLITS)} and vocab.json are there')
        return
    _h5py()  # a missing package is an error before the long work
    photographs, absent = read_photographs(raw / 'image_data.json', work)
    if absent:
        work.say(f'vg: {absent:,} photographs of the list are not in {work.folder / "images"}: left out')
    aliases = read_aliases(raw / 'object_alias.txt')
    names = vocabulary(raw / 'objects.json', photographs, aliases, work)
    kept: dict[str, list[tuple[int, list[Object]]]] = {split: [] for split in SPLITS}
    with work.track('choosing objects', len(photographs), 'images') as count:
        for number, found in objects_of(raw / 'objects.json', photographs):
            chosen = choose(found, photographs[number], names, aliases)
            if FEWEST <= len(chosen) <= MOST:
                kept[photographs[number].split].append((number, chosen))
            count.advance()
    for split, images in kept.items():
        write_split(work.folder / f'{split}.h5', images, photographs)
        work.say(f'vg: {split}.h5 has {len(images):,} images, {sum(len(o) for _, o in images):,} objects')
    write_json(work.folder / 'vocab.json', {'object_idx_to_name': list(names), 'object_name_to_idx': names})
    write_json(work.folder / NOTE, note)
    work.say(f'vg: vocab.json has {len(names) - 1} names of objects')


def _note(work: Work) -> dict[str, Any]:
    """What the files depend on."""
    raw = {name: (work.folder / 'raw' / name) for name in ('image_data.json', 'objects.json', 'object_alias.txt')}
    sizes = {name: path.stat().st_size if path.is_file() else None for name, path in raw.items()}
    given = None if work.splits is None else hashlib.sha256(_splits_bytes(work.splits)).hexdigest()
    return {'sizes': sizes, 'splits': given, 'thresholds': [MIN_COUNT, MIN_SIDE, FEWEST, MOST]}


def _is_done(folder: Path, note: dict[str, Any]) -> bool:
    if not all((folder / name).is_file() for name in (NOTE, 'vocab.json', *(f'{split}.h5' for split in SPLITS))):
        return False
    try:
        return bool(read_json(folder / NOTE) == note)
    except (OSError, ValueError):
        return False


# what is published


def read_photographs(path: Path, work: Work) -> tuple[dict[int, Photograph], int]:
    """The photographs by id, without those whose file is absent, and how many these are."""
    given = None if work.splits is None else read_splits(work.splits)
    found: dict[int, Photograph] = {}
    absent = 0
    for entry in elements(path, 'Unpack its archive again.'):
        number, url = _get(entry, 'image_id'), _get(entry, 'url')
        width, height = _get(entry, 'width'), _get(entry, 'height')
        parts = str(url).split('/')[-2:]
        if not all(type(n) is int and n > 0 for n in (number, width, height)) or len(parts) != 2 or '..' in parts:
            raise _odd(path, entry, '{"image_id", "url", "width", "height"}')
        split = split_of(number) if given is None else given.get(number)
        if split is None:
            continue
        if (work.folder / 'images' / parts[0] / parts[1]).is_file():
            found[number] = Photograph(split, '/'.join(parts), width, height)
        else:
            absent += 1
    if not found:
        raise UserError(
            f'none of the {absent:,} photographs of {path} is in {work.folder / "images"}',
            'They are images/VG_100K/ID.jpg and images/VG_100K_2/ID.jpg: unpack images.zip and images2.zip again.',
        )
    return found, absent


def split_of(number: int) -> str:
    share = int(hashlib.sha256(str(number).encode()).hexdigest()[:8], 16) / 2**32
    return next((split for split, end in SHARES.items() if share < end), 'train')


def read_splits(path: Path) -> dict[int, str]:
    try:
        value = read_json(path, LARGEST)
    except (OSError, ValueError) as error:
        raise UserError(f'{path} cannot be read: {error}', 'It maps train, val and test to lists of ids.') from error
    if (
        not isinstance(value, dict)
        or not set(SPLITS) >= set(value)
        or not all(isinstance(ids, list) for ids in value.values())
    ):
        raise UserError(f'{path} is no list of splits', f'It maps {", ".join(SPLITS)} to lists of ids.')
    return {number: split for split, ids in value.items() for number in ids if type(number) is int}


def _splits_bytes(path: Path) -> bytes:
    try:
        return read_bytes(path, LARGEST)
    except (OSError, ValueError) as error:
        raise UserError(f'{path} cannot be read: {error}', 'Give --splits a JSON file.') from error


def read_aliases(path: Path) -> dict[str, str]:
    """Name -> the name it is counted as. A line is: NAME,ALIAS,ALIAS,..."""
    try:
        lines = read_bytes(path).decode().splitlines()
    except (OSError, ValueError) as error:
        raise UserError(
            f'{path} cannot be read: {error}', 'Delete its .unpacked.json in archives/, and run this again.'
        ) from error
    found: dict[str, str] = {}
    for line in lines:
        names = [name.strip() for name in line.split(',') if name.strip()]
        found.update((name, names[0]) for name in names)
    return found


def objects_of(path: Path, photographs: dict[int, Photograph]) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """(id of a photograph, its objects) of those that are wanted."""
    for entry in elements(path, 'Unpack its archive again.'):
        number = _get(entry, 'image_id', _get(entry, 'id'))
        objects = _get(entry, 'objects')
        if type(number) is not int or not isinstance(objects, list):
            raise _odd(path, entry, '{"image_id", "objects": [...]}')
        if number in photographs:
            for each in objects:
                sides = [_get(each, key) for key in ('x', 'y', 'w', 'h')]
                names = _get(each, 'names')
                sound = all(isinstance(side, int | float) for side in sides) and isinstance(names, list)
                if not sound or type(_get(each, 'object_id')) is not int:
                    raise _odd(path, each, '{"object_id", "x", "y", "w", "h", "names"}')
            yield number, objects


def _get(entry: Any, key: str, otherwise: Any = None) -> Any:
    return entry.get(key, otherwise) if isinstance(entry, dict) else None


def _odd(path: Path, entry: Any, form: str) -> UserError:
    return UserError(f'{path} has an entry of another form: {entry!r:.120}', f'Expected is {form}: take the published file.')


# what is kept


def vocabulary(path: Path, photographs: dict[int, Photograph], aliases: dict[str, str], work: Work) -> dict[str, int]:
    """The names that are frequent enough in the training images, the most frequent first."""
    counts: collections.Counter[str] = collections.Counter()
    with work.track('counting names', len(photographs), 'images') as count:
        for number, objects in objects_of(path, photographs):
            if photographs[number].split == 'train':
                for each in objects:
                    counts.update({aliases.get(name, name) for name in each['names'] if isinstance(name, str)})
            count.advance()
    frequent = sorted((name for name, times in counts.items() if times >= MIN_COUNT), key=lambda name: (-counts[name], name))
    return {name: place for place, name in enumerate([WHOLE, *frequent])}


def choose(
    objects: list[dict[str, Any]], photograph: Photograph, names: dict[str, int], aliases: dict[str, str]
) -> list[Object]:
    """Objects that have a name of the vocabulary, and are large enough inside of the image."""
    found: list[Object] = []
    for each in objects:
        left, top = max(int(each['x']), 0), max(int(each['y']), 0)
        right = min(int(each['x']) + int(each['w']), photograph.width)
        bottom = min(int(each['y']) + int(each['h']), photograph.height)
        known = (aliases.get(name, name) for name in each['names'] if isinstance(name, str))
        name = next((name for name in known if name in names), None)
        if name is not None and min(right - left, bottom - top) >= MIN_SIDE:
            found.append((each['object_id'], names[name], (left, top, right - left, bottom - top)))
    return found


def write_split(path: Path, images: list[tuple[int, list[Object]]], photographs: dict[int, Photograph]) -> None:
    ids = np.full((len(images), MOST), -1, np.int64)
    names, boxes = np.full((len(images), MOST), -1, np.int32), np.full((len(images), MOST, 4), -1, np.int32)
    for row, (_, objects) in enumerate(images):
        for column, (number, name, box) in enumerate(objects):
            ids[row, column], names[row, column], boxes[row, column] = number, name, box
    buffer = io.BytesIO()
    h5py = _h5py()
    with h5py.File(buffer, 'w') as file:
        file['image_ids'] = np.array([number for number, _ in images], np.int64)
        paths = [photographs[number].path for number, _ in images]
        file.create_dataset('image_paths', data=np.array(paths, object), dtype=h5py.string_dtype())
        file['objects_per_image'] = np.array([len(objects) for _, objects in images], np.int32)
        file['object_ids'], file['object_names'], file['object_boxes'] = ids, names, boxes
    with placed(path) as opened:
        opened.write(buffer.getvalue())


def _h5py() -> Any:
    try:
        import h5py
    except ImportError as error:
        raise UserError(f'vg needs h5py, which cannot be imported: {error}', "pip install 'vq[data]'") from error
    return h5py
