"""What a model sees of one image: before and after the transforms, as a picture and in words.

Of a CONFIG: the sample of the split --split (default: train) as it is stored, and after the transforms: in training as a run
with --seed sees it in its first epochs. Boxes, points, masks, classes and captions are shown where there are any.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from vq.cli import data_report, data_source
from vq.cli.next_steps import say_next
from vq.core.errors import UserError

PHOTO_SIZE = 64  # the image_size of configs/photos
AUGMENTATIONS = ('none', 'weak', 'strong', 'square', 'default')
DRAWS = 6  # of the augmentation
CELL = 192  # pixels


def add_arguments(parser: argparse.ArgumentParser) -> None:
    data_source.add_source(parser)
    parser.add_argument('--index', type=int, default=0, metavar='N', help='number of the image (default: 0)')
    parser.add_argument('--seed', type=int, default=3407, help='of a config: the seed of the run (default: 3407)')
    parser.add_argument(
        '--image-size', type=int, metavar='S', help=f'of a folder: pixels (default: {PHOTO_SIZE}); of a config: image_size=S'
    )
    parser.add_argument('--augmentation', choices=AUGMENTATIONS, help='of a folder: transform of training (default: strong)')


def run(options: argparse.Namespace) -> int:
    folder = data_source.folder_of(options)
    return show_config(options) if folder is None else show_folder(options, folder)


def show_config(options: argparse.Namespace) -> int:
    from vq.assembly import logs
    from vq.assembly.data import open_splits
    from vq.core.random import python_stream
    from vq.data.decode import BadImage
    from vq.data.survey.drawing import pictures, words

    for flag, given in (('image-size', options.image_size), ('augmentation', options.augmentation)):
        if given is not None:
            name = flag.replace('-', '_')
            raise UserError(f'--{flag} is for a folder, and {options.config} is a config', f'Write {name}={given} after it.')
    logs.start()
    splits = open_splits(data_source.compose_source(options), options.split)
    split = splits.get('train') or splits['validation']
    dataset = split.dataset
    names, labels = dataset.categories, dataset.label_names or dataset.categories
    index = place_of(options.index, len(dataset), f'{dataset.name}, split {split.name},')
    draws = DRAWS if split.training else 1
    try:
        before = dataset.original(index)
        after = [dataset.load(index, python_stream('sample', options.seed, epoch, index)) for epoch in range(draws)]
    except BadImage as error:
        raise UserError(f'bad image {error}', 'Training leaves it out with bad_images=skip; take another --index.') from error
    height, width = before.size
    when = f'epochs 0 to {draws - 1} of a run with --seed {options.seed}' if split.training else 'in validation'
    drawn = [pictures(sample, CELL, labels) for sample in after]
    said = words(before, names, labels)
    rows = [(f'before transforms: {width} x {height}; {"; ".join(said[1:])}', pictures(before, CELL, labels))]
    rows += [
        (f'after the transforms, {when}: {after[0].size[1]} x {after[0].size[0]}' if number == 0 else 'masks', [*row])
        for number, row in enumerate(zip(*drawn, strict=True))
    ]
    place = data_source.work_folder(options.work_dir, dataset.name) / f'show_{split.name}_{index}.png'
    data_report.write_sheet(rows, CELL, place)
    print(f'sample {index} of {len(dataset)} of {dataset.name}, split {split.name}: {before["id"]}')
    if before.get('path'):
        print(f'  file: {before["path"]}')
    for title, lines in (('before transforms', said), ('after the transforms', words(after[0], names, labels))):
        print(f'  {title}:')
        print('\n'.join(f'    {line}' for line in lines))
    print('  the model gets (3, H, W) floats in [-1, 1]: 2 v / 255 - 1')
    print(f'picture: {place}')
    say_next(f'vq data check {data_source.again(options)}')
    return 0


def place_of(index: int, count: int, owner: str) -> int:
    if not -count <= index < count:
        raise UserError(f'there is no image {index}: {owner} has {count}', f'--index is a number from 0 to {count - 1}.')
    return index % count


def show_folder(options: argparse.Namespace, folder: Path) -> int:
    from vq.core.random import python_stream
    from vq.data import transforms
    from vq.data.decode import BadImage, decode_image
    from vq.data.survey.drawing import describe
    from vq.data.survey.reading import KINDS, inspect
    from vq.data.survey.sheet import enlarged
    from vq.data.survey.survey import find_root

    data_source.refuse_pairs(options, 'Write --image-size and --augmentation, or vq data show folder data_root=FOLDER ...')
    size = PHOTO_SIZE if options.image_size is None else options.image_size
    augmentation = options.augmentation or 'strong'
    if size < 1:
        raise UserError(f'--image-size is {size}', 'It is a number of pixels, at least 1.')
    listing, moved = find_root(folder)
    count = len(listing.images)
    index = place_of(options.index, count, str(listing.root))
    name = listing.images[index]
    path = listing.root / name
    facts = inspect(path)
    if facts.reason:
        raise UserError(
            f'bad image {path}: {facts.reason}', 'Training leaves it out with bad_images=skip; take another --index.'
        )
    decoded = decode_image(path)
    augment = getattr(transforms, augmentation)
    try:
        validated = transforms.none(decoded, python_stream('show', index), image_size=size)
        trained = [augment(decoded, python_stream('show', index, draw), image_size=size) for draw in range(DRAWS)]
    except BadImage as error:
        raise UserError(f'bad image {path}: it {error.reason}', 'Training leaves it out with bad_images=skip.') from error
    picture = data_source.work_folder(options.work_dir, listing.root.resolve().name) / f'show_{index}.png'
    rows = [
        (f'the file, upright and RGB: {facts.width} x {facts.height}', [enlarged(decoded, CELL)]),
        (f'in validation (none): {size} x {size}', [enlarged(validated, CELL)]),
        (f'in training ({augmentation}), {DRAWS} draws', [enlarged(one, CELL) for one in trained]),
    ]
    data_report.write_sheet(rows, CELL, picture)
    if moved:
        print(f'{moved}: data_root is {listing.root}')
    print(f'image {index} of {count}: {path}')
    for kind in facts.kinds:
        print(f'  {kind}: {KINDS[kind]}')
    short = min(facts.width, facts.height)
    change = 'not resized' if short == size else f'{"made smaller" if short > size else "ENLARGED"} by {size / short:.3g}'
    kept = short * short / (facts.width * facts.height)
    print(f'  decoded: {describe(decoded)}')
    print(f'  short side {short} to {size}: {change}; the centre crop keeps {kept:.0%} of the area')
    print(f'  validation: {describe(validated)}')
    print(f'  training ({augmentation}): {describe(trained[0])}')
    print('  the model gets (3, S, S) floats in [-1, 1]: 2 v / 255 - 1')
    print(f'picture: {picture}')
    say_next(f'vq data check {data_source.again(options)}')
    return 0
