"""CelebA-HQ and FFHQ at one small size, sorted into the folders of their splits.

Photographs are reduced by Pillow's Lanczos filter, and written as PNG. Another filter, or JPEG, changes FID.
"""

from __future__ import annotations

import functools
import io
import re
from collections.abc import Iterable
from pathlib import Path

from PIL import Image

from vq.core.errors import RunFailure, UserError
from vq.data.decode import BadImage, decode_image
from vq.data.files import find_images
from vq.data.prepare import celebamask
from vq.data.prepare.work import Work, make_missing, placed

FFHQ_TRAIN = 60_000  # FFHQ's own split: the first 60,000 are to train on

Made = tuple[Path, Path]  # photograph, image to write


def prepare_celeba_hq(work: Work) -> None:
    """From the photographs of CelebAMask-HQ, in the splits of CelebA."""
    source = work.root / 'celebamask-hq'
    numbers = celebamask.numbers_in(source / celebamask.IMAGES)
    splits = celebamask.read_splits(source / celebamask.MAPPING, numbers)
    made = [
        (source / celebamask.IMAGES / f'{number}.jpg', f'{split}/{number:05d}.png')
        for split, members in splits.items()
        for number in members
    ]
    _reduce('celeba_hq', made, work.root / f'celeba-hq-{work.size}', work)


def prepare_ffhq(work: Work) -> None:
    """From ``raw/images1024x1024``, at any depth: the number in the name decides the split."""
    root = work.folder / 'raw' / 'images1024x1024'
    found: dict[int, Path] = {}
    for name in find_images(root):
        match = re.fullmatch(r'(?:.*/)?([0-9]{1,9})\.\w+', name)
        if match is None or int(match[1]) in found:
            why = 'is not named by its number' if match is None else f'has the number of {found[int(match[1])]}'
            raise UserError(f'{root / name} {why}', 'Unpack the archive again, into an empty folder.')
        found[int(match[1])] = root / name
    made = [(file, f'{"train" if number < FFHQ_TRAIN else "val"}/{number:05d}.png') for number, file in sorted(found.items())]
    _reduce('ffhq', made, work.root / f'ffhq-{work.size}', work)


def _reduce(name: str, wanted: Iterable[tuple[Path, str]], folder: Path, work: Work) -> None:
    made = [(file, folder / target) for file, target in wanted]
    missing = [(file, target) for file, target in made if not target.is_file() or not target.stat().st_size]
    make_missing(work, f'reducing to {work.size} pixels', len(made), missing, functools.partial(_write, size=work.size))
    said = {split: sum(target.parent.name == split for _, target in made) for split in ('train', 'val', 'test')}
    sizes = ', '.join(f'{split} {number:,}' for split, number in said.items() if number)
    work.say(f'{name}: {sizes} in {folder}, {len(missing):,} of them new')


def _write(pair: Made, size: int) -> None:
    file, target = pair
    try:
        pixels = decode_image(str(file))
    except BadImage as error:
        raise RunFailure(f'{error}', 'Unpack the archive again: delete the file, and the .unpacked.json.') from error
    height, width = pixels.shape[:2]
    if height != width or height < size:
        raise UserError(f'{file} is {width} x {height}', f'A square photograph of at least {size} pixels is expected here.')
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize((size, size), Image.Resampling.LANCZOS).save(buffer, 'PNG')
    with placed(target) as opened:
        opened.write(buffer.getvalue())
