"""What a model sees of one image: the file, the image in training and in validation, as a picture and in words."""

from __future__ import annotations

import argparse
from pathlib import Path

from vq.cli.data_check import PHOTO_SIZE, work_folder
from vq.cli.next_steps import say_next
from vq.core.errors import UserError

AUGMENTATIONS = ('none', 'weak', 'strong', 'square', 'default')
DRAWS = 6  # of the augmentation
CELL = 192  # pixels


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('folder', metavar='FOLDER', type=Path, help='the folder that holds the images')
    parser.add_argument('--index', type=int, default=0, metavar='N', help='number of the image, by sorted path (default: 0)')
    parser.add_argument('--image-size', type=int, default=PHOTO_SIZE, metavar='S', help='pixels (default: %(default)s)')
    parser.add_argument(
        '--augmentation', choices=AUGMENTATIONS, default='strong', help='transform of training (default: %(default)s)'
    )
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs'), help='where the picture is written')


def run(options: argparse.Namespace) -> int:
    import io

    from vq.core.random import python_stream
    from vq.data import transforms
    from vq.data.decode import BadImage, decode_image
    from vq.data.survey.reading import KINDS, inspect
    from vq.data.survey.sheet import enlarged, sheet
    from vq.data.survey.survey import find_root
    from vq.io import atomic

    size, index = options.image_size, options.index
    if size < 1:
        raise UserError(f'--image-size is {size}', 'It is a number of pixels, at least 1.')
    listing, moved = find_root(options.folder)
    count = len(listing.images)
    if not -count <= index < count:
        raise UserError(
            f'there is no image {index}: {listing.root} has {count}', f'--index is a number from 0 to {count - 1}.'
        )
    name = listing.images[index]
    path = listing.root / name
    facts = inspect(path)
    if facts.reason:
        raise UserError(
            f'bad image {path}: {facts.reason}', 'Training leaves it out with bad_images=skip; take another --index.'
        )
    decoded = decode_image(path)
    augment = getattr(transforms, options.augmentation)
    try:
        validated = transforms.none(decoded, python_stream('show', index), image_size=size)
        trained = [augment(decoded, python_stream('show', index, draw), image_size=size) for draw in range(DRAWS)]
    except BadImage as error:
        raise UserError(f'bad image {path}: it {error.reason}', 'Training leaves it out with bad_images=skip.') from error
    picture = work_folder(options.work_dir, listing.root) / f'show_{index % count}.png'
    rows = [
        (f'the file, upright and RGB: {facts.width} x {facts.height}', [enlarged(decoded, CELL)]),
        (f'in validation (none): {size} x {size}', [enlarged(validated, CELL)]),
        (f'in training ({options.augmentation}), {DRAWS} draws', [enlarged(one, CELL) for one in trained]),
    ]
    stream = io.BytesIO()
    sheet(rows, CELL).save(stream, 'PNG')
    picture.parent.mkdir(parents=True, exist_ok=True)
    atomic.write_bytes(picture, stream.getvalue())
    if moved:
        print(f'{moved}: data_root is {listing.root}')
    print(f'image {index % count} of {count}: {path}')
    for kind in facts.kinds:
        print(f'  {kind}: {KINDS[kind]}')
    short = min(facts.width, facts.height)
    change = 'not resized' if short == size else f'{"made smaller" if short > size else "ENLARGED"} by {size / short:.3g}'
    kept = short * short / (facts.width * facts.height)
    print(f'  decoded: {describe(decoded)}')
    print(f'  short side {short} to {size}: {change}; the centre crop keeps {kept:.0%} of the area')
    print(f'  validation: {describe(validated)}')
    print(f'  training ({options.augmentation}): {describe(trained[0])}')
    print('  the model gets (3, S, S) floats in [-1, 1]: 2 v / 255 - 1')
    print(f'picture: {picture}')
    say_next(f'vq data check {options.folder}')
    return 0


def describe(image: object) -> str:
    import numpy as np

    pixels = np.asarray(image)
    means = ' '.join(f'{mean:.0f}' for mean in pixels.reshape(-1, 3).mean(0))
    return f'{pixels.shape} {pixels.dtype}, values {pixels.min()} to {pixels.max()}, mean {means}'
