"""CelebAMask-HQ: one map of 19 classes per face, joined from the published map of each part; lists of the splits.

``CelebAMask-HQ-mask-anno/FOLDER/NUMBER_PART.png`` are the parts, with NUMBER in five digits. The maps are
``CelebAMaskHQ-mask/NUMBER.png``, as the photographs are ``CelebA-HQ-img/NUMBER.jpg``.
"""

from __future__ import annotations

import functools
import io
import os
import re
from pathlib import Path

import numpy as np
from PIL import Image

from vq.core.errors import RunFailure, UserError, listing
from vq.core.reading import read_bytes
from vq.data.datasets.celeba_mask import CLASSES
from vq.data.decode import BadImage, decode_image
from vq.data.prepare.work import Work, make_missing, placed
from vq.io.atomic import write_text

IMAGES, PARTS, MAPS, MAPPING = (
    'CelebA-HQ-img',
    'CelebAMask-HQ-mask-anno',
    'CelebAMaskHQ-mask',
    'CelebA-HQ-to-CelebA-mapping.txt',
)
FIRST = {'train': 1, 'val': 162_771, 'test': 182_638}  # CelebA's own partition, by the number in the name of its files

Parts = dict[int, list[tuple[int, str]]]  # number of a face -> (class, file) of its parts, in the order of the classes


def prepare(work: Work) -> None:
    parts = find_parts(work.folder)
    numbers = numbers_in(work.folder / IMAGES)
    without = [number for number in numbers if number not in parts]
    if without:
        raise UserError(
            f'{len(without):,} of {len(numbers):,} photographs in {work.folder / IMAGES} have no parts in {PARTS}, '
            f'such as {without[0]}.jpg',
            'Unpack the archive completely: delete its .unpacked.json in archives/, and run this again.',
        )
    made = join_all(parts, numbers, work)
    work.say(f'celebamask: {len(numbers):,} maps in {work.folder / MAPS}, {made:,} of them new')
    splits = read_splits(work.folder / MAPPING, numbers)
    for split, members in splits.items():
        write_text(work.folder / f'{split}.txt', ''.join(f'{number}.jpg\n' for number in members))
    said = ', '.join(f'{split}.txt {len(members):,}' for split, members in splits.items())
    work.say(f'celebamask: {said}')


def numbers_in(folder: Path) -> list[int]:
    """The numbers of the photographs, in order."""
    try:
        names = [entry.name for entry in os.scandir(folder)]
    except OSError as error:
        raise UserError(f'{folder} cannot be listed: {error.strerror}', 'It holds the photographs NUMBER.jpg.') from error
    found = sorted(int(match[1]) for name in names if (match := re.fullmatch(r'([0-9]{1,9})\.jpg', name)))
    if not found:
        raise UserError(f'{folder} holds no NUMBER.jpg, only: {listing(names, 6) or "nothing"}', 'Unpack the archive again.')
    return found


def find_parts(folder: Path) -> Parts:
    """All files of parts below ``folder``. A name that is not NUMBER_PART.png is an error: no part may be forgotten."""
    places = {name: place for place, name in enumerate(CLASSES)}
    found: Parts = {}
    root = folder / PARTS
    if not root.is_dir():
        raise UserError(f'{root} does not exist', 'It comes with CelebAMask-HQ.zip: unpack the archive again.')
    for place, _, names in os.walk(root):
        for name in names:
            if name.startswith('.') or not name.endswith('.png'):
                continue
            match = re.fullmatch(r'([0-9]{1,9})_(\w+)\.png', name)
            if match is None or match[2] not in places or match[2] == CLASSES[0]:
                raise UserError(
                    f'{os.path.join(place, name)} is not named after a part of a face',
                    f'Names are NUMBER_PART.png; parts are: {", ".join(CLASSES[1:])}.',
                )
            found.setdefault(int(match[1]), []).append((places[match[2]], os.path.join(place, name)))
    for number, parts in found.items():
        parts.sort()
        twice = [file for (kind, file), (before, _) in zip(parts[1:], parts, strict=False) if kind == before]
        if twice:
            raise UserError(f'{twice[0]} is there twice for face {number}', f'Keep one of the two below {root}.')
    return found


def join_all(parts: Parts, numbers: list[int], work: Work) -> int:
    """Write the maps that are missing. Returns how many these were."""
    folder = work.folder / MAPS
    there = {entry.name for entry in os.scandir(folder) if entry.stat().st_size} if folder.is_dir() else set()
    missing = [number for number in numbers if f'{number}.png' not in there]
    make_missing(work, 'joining parts', len(numbers), missing, functools.partial(_write, parts, folder))
    return len(missing)


def _write(parts: Parts, folder: Path, number: int) -> None:
    buffer = io.BytesIO()
    Image.fromarray(join(parts[number])).save(buffer, 'PNG')
    with placed(folder / f'{number}.png') as file:
        file.write(buffer.getvalue())


def join(parts: list[tuple[int, str]]) -> np.ndarray:
    """The map (H, W) uint8 of one face: a pixel that is not black in a part has its class, of the last one if several."""
    joined: np.ndarray | None = None
    for kind, file in parts:
        try:
            mask = decode_image(file)[:, :, 0]
        except BadImage as error:
            raise RunFailure(f'{error}', 'Unpack the archive again: delete the file, and its .unpacked.json.') from error
        if joined is None:
            joined = np.zeros(mask.shape, np.uint8)
        if mask.shape != joined.shape:
            raise UserError(f'{file} is {mask.shape}, and other parts of this face are {joined.shape}', 'Unpack it again.')
        joined[mask != 0] = kind
    if joined is None:
        raise ValueError('a face without parts')
    return joined


def read_splits(file: Path, numbers: list[int]) -> dict[str, list[int]]:
    """The faces of each split of CelebA. A line of the mapping is: number, place in CelebA, file in CelebA."""
    try:
        lines = read_bytes(file).decode('ascii').split('\n')
    except (OSError, ValueError) as error:
        raise UserError(f'{file} cannot be read: {error}', 'It comes with CelebAMask-HQ.zip: unpack it again.') from error
    origin = {
        int(m[1]): int(m[2]) for line in lines if (m := re.fullmatch(r'\s*(\d{1,9})\s+\d{1,9}\s+(\d{1,9})\.jpg\s*', line))
    }
    unknown = [number for number in numbers if number not in origin]
    if unknown:
        raise UserError(
            f'{file} does not say from which file of CelebA {len(unknown):,} photographs come, such as {unknown[0]}.jpg',
            'A line is: NUMBER PLACE FILE.jpg. Unpack the file again.',
        )
    splits: dict[str, list[int]] = {split: [] for split in FIRST}
    for number in numbers:
        splits[max((first, split) for split, first in FIRST.items() if first <= max(1, origin[number]))[1]].append(number)
    return splits
