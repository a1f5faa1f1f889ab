"""What ``vq data check`` prints about a folder: at most 80 columns, tables and one sentence for each finding."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vq.data.survey.survey import Survey
    from vq.data.survey.surveyed import Surveyed

WIDTH = 80
MOST = 8  # files, groups or classes that are listed
MOST_CLASSES = 20
FEW_IMAGES = 50
BAD_LIMIT = 0.2  # bad_images_limit of the recipes
BAR = 30  # columns
SHEET_ROWS, SHEET_COLUMNS = 12, 8


def show(found: Survey, picture: Path) -> None:
    good = int(found.good.sum())
    head = f'{found.root}: {number(good, "image")}'
    if found.labels is not None:
        head += f' in {number(len(found.categories), "class", "classes")}'
    head += f', {len(found.bad)} bad, {sum(found.listing.ignored.values())} other files'
    if found.moved:
        paragraph(f'{found.moved}. So data_root is {found.root}, and this is what was looked at.')
    paragraph(head)
    classes(found)
    sizes(found)
    kinds(found)
    files('cannot be read', found.bad)
    files('training refuses the folder with', found.listing.faults)
    others(found)
    duplicates(found)
    split(found)
    for text in warnings(found):
        paragraph(f'warning: {text}')
    print()
    print(f'sample sheet: {clean(str(picture))}')


def paragraph(text: str) -> None:
    print(textwrap.fill(clean(text), WIDTH, subsequent_indent='  ', break_long_words=False, break_on_hyphens=False))


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]], words: int = 1) -> None:
    """The first ``words`` columns hold words, the others numbers; long words are folded."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    print()
    made = Table(show_edge=False, title=Text(title) if title else None, title_justify='left', pad_edge=False)
    for place, name in enumerate(columns):
        made.add_column(name, justify='left' if place < words else 'right', overflow='fold')
    for row in rows:
        made.add_row(*(Text(clean(str(cell))) for cell in row))
    Console(width=WIDTH, highlight=False).print(made)


def clean(text: str) -> str:
    """Names of files may hold anything: what would steer a terminal is shown as an escape."""
    return ''.join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def number(count: int, one: str, many: str = '') -> str:
    return f'{count:,} {one if count == 1 else many or one + "s"}'


def classes(found: Surveyed) -> None:
    counts = found.per_class()
    if not counts:
        return
    splits = [name for name in ('train', 'validation', 'test') if any(name in each for each in counts.values())]
    rows = [
        (place, name, *(each.get(one, 0) for one in splits), sum(each.values()))
        for place, (name, each) in enumerate(counts.items())
    ]
    shown = rows if len(rows) <= MOST_CLASSES else [*rows[: MOST_CLASSES - 1]]
    table('classes', ['number', 'name', *splits, 'images'], shown, 2)
    if len(shown) < len(rows):
        print(f'... and {len(rows) - len(shown)} more classes (--json FILE lists all)')


def sizes(found: Surveyed) -> None:
    histogram = {name: count for name, count in found.histogram().items() if count}
    longest = max(histogram.values())
    rows = [(name, '#' * max(1, round(BAR * count / longest)), count) for name, count in histogram.items()]
    table('short sides in pixels', ['pixels', '', 'images'], rows, 2)
    good = found.sizes[found.good]
    areas = good.prod(axis=1)
    smallest, largest = good[areas.argmin()], good[areas.argmax()]
    shapes = ', '.join(f'{count} {name}' for name, count in found.shapes().items() if count)
    paragraph(f'width x height from {smallest[0]} x {smallest[1]} to {largest[0]} x {largest[1]}; {shapes}')
    fewer = int((found.short_sides < found.image_size).sum())
    fits = 2 * fewer <= len(good)
    text = f'image_size={found.image_size} fits' if fits else f'image_size={found.image_size} is the smallest usual one'
    many = f'{len(good) - fewer:,} of {len(good):,} images have at least {found.image_size} pixels'
    paragraph(f'{text}: {many}' + (f', {fewer:,} will be enlarged' if fewer else ''))


def kinds(found: Surveyed) -> None:
    from vq.data.survey.reading import KINDS

    rows = [(kind, done, found.kinds[kind]) for kind, done in KINDS.items() if found.kinds[kind]]
    if rows:
        table('kinds of images', ['kind', 'what is done with it', 'images'], rows, 2)


def files(title: str, reasons: dict[str, str]) -> None:
    if not reasons:
        return
    table(f'{title}: {number(len(reasons), "file")}', ['file', 'reason'], list(reasons.items())[:MOST], 2)
    if len(reasons) > MOST:
        print(f'... and {len(reasons) - MOST} more (--json FILE lists all)')


def others(found: Survey) -> None:
    if not found.listing.ignored:
        return
    ignored = found.listing.ignored.most_common(MOST)
    rows = [(reason, found.listing.examples[reason][0], count) for reason, count in ignored]
    table('other files, ignored', ['reason', 'for example', 'files'], rows, 2)


def duplicates(found: Surveyed) -> None:
    for title, groups in (('same bytes', found.copies), ('same pixels in another file', found.lookalikes)):
        if not groups:
            continue
        extra = sum(len(group) - 1 for group in groups)
        print(f'\nduplicates, {title}: {number(extra, "file")} more than needed')
        for group in groups[:MOST]:
            names = [f'{found.names[index]} ({found.splits[index] or "no split"})' for index in group[:4]]
            more = f' and {len(group) - 4} more' if len(group) > 4 else ''
            paragraph(f'  {" = ".join(names)}{more}')
        if len(groups) > MOST:
            print(f'  ... and {len(groups) - MOST} more groups (--json FILE lists all)')


def split(found: Survey) -> None:
    counts = found.per_split()
    print()
    said = ', '.join(f'{count} {name}' for name, count in counts.items())
    if found.layout.kind == 'split folders':
        paragraph(f'splits, by their folders: {said}')
    else:
        paragraph(
            f'splits, by a hash of the paths (held_out={found.share:g}): {said}. Images that are added later move no image '
            'to another split.'
        )


def needed_limit(found: Surveyed) -> float | None:
    """``bad_images_limit`` that the folder needs, if the default is too small in any split."""
    from vq.data.bad_images import allowed_bad

    splits, needed = found.splits, 0.0
    for name in {*splits} - {''}:
        bad = [path in found.bad for path, own in zip(found.names, splits, strict=True) if own == name]
        if sum(bad) > allowed_bad(BAD_LIMIT, len(bad)):
            needed = max(needed, sum(bad) / len(bad))
    return (
        min(1.0, (math.floor(needed * 100 + 1e-9) + 1) / 100) if needed else None
    )  # above it: fractions are cut to whole files


def warnings(found: Survey) -> list[str]:
    said = list(found.layout.warnings)
    if found.listing.faults:
        moved = number(len(found.listing.faults), 'entry', 'entries')
        said.append(f'training refuses the folder: move {moved} out of it, and check again')
    return said + remarks(found)


def remarks(found: Surveyed) -> list[str]:
    """What to know before training, of any images."""
    said = []
    if leaks := found.leaks():
        images = sum(len(group) for group in leaks)
        said.append(
            f'LEAKAGE: {images} equal images lie in more than one split, so that figures of validation are too good. Delete '
            'the duplicates before training.'
        )
    if found.bad:
        limit = needed_limit(found)
        more = '' if limit is None else f'; more than bad_images_limit={BAD_LIMIT:g} allows'
        said.append(f'{number(len(found.bad), "file")} cannot be read: bad_images=skip leaves them out{more}')
    counts = {name: sum(each.values()) for name, each in found.per_class().items()}
    if small := [name for name, count in counts.items() if count < 2]:
        said.append(f'{number(len(small), "class has", "classes have")} fewer than 2 images: {shortened(small)}')
    said += uneven(counts)
    without = [name for name, each in found.per_class().items() if each and 'validation' not in each]
    if without and found.per_split().get('validation'):
        said.append(f'no validation image of {number(len(without), "class", "classes")}: {shortened(without)}')
    if not found.per_split().get('validation'):
        said.append('there is no validation image: validation during training has nothing to measure')
    if narrow := found.shapes()['long and narrow']:
        said.append(f'{number(narrow, "image")} longer than 3 times the short side: a crop shows only a part')
    if (good := int(found.good.sum())) < FEW_IMAGES:
        said.append(f'{number(good, "image")}: a model learns these by heart; a few hundred are a start')
    return said


def uneven(counts: dict[str, int]) -> list[str]:
    from vq.data.survey.surveyed import UNEVEN

    ordered = sorted((count, name) for name, count in counts.items() if count)
    if len(ordered) > 1 and ordered[-1][0] >= UNEVEN * ordered[0][0]:
        (low, least), (high, most) = ordered[0], ordered[-1]
        return [f'classes are uneven: {high} images of {most}, {low} of {least}']
    return []


def shortened(names: Sequence[str]) -> str:
    return ', '.join(names[:MOST]) + (f', ... ({len(names)} in all)' if len(names) > MOST else '')


def samples(found: Surveyed) -> list[tuple[str, list[int]]]:
    """(words, images): a row for each class, evenly spread over it; without classes, rows of all images."""
    import numpy as np

    good = np.flatnonzero(found.good)
    if found.labels is None:
        spread = good[np.linspace(0, len(good) - 1, min(len(good), 4 * SHEET_COLUMNS)).astype(int)].tolist()
        rows = [spread[first : first + SHEET_COLUMNS] for first in range(0, len(spread), SHEET_COLUMNS)]
        return [('all images' if number == 0 else '', row) for number, row in enumerate(rows)]
    names, found_rows = found.categories, []
    for label in np.unique(np.linspace(0, len(names) - 1, min(len(names), SHEET_ROWS)).astype(int)):
        own = good[found.labels[good] == label]
        if len(own):
            spread = own[np.linspace(0, len(own) - 1, min(len(own), SHEET_COLUMNS)).astype(int)].tolist()
            found_rows.append((f'{label}: {names[label]}', spread))
    return found_rows


def write_sheet(rows: Sequence[tuple[str, Sequence[Any]]], size: int, path: Path) -> Any:
    """The sample sheet as a file and as pixels (H, W, 3); None if there is no image to show."""
    if not rows:
        return None
    import io

    import numpy as np

    from vq.data.survey.sheet import sheet
    from vq.io import atomic

    made, stream = sheet(rows, size), io.BytesIO()
    made.save(stream, 'PNG')
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic.write_bytes(path, stream.getvalue())
    return np.asarray(made)


def write_json(path: Path | None, facts: Mapping[str, Any]) -> None:
    if path is None:
        return
    import json

    from vq.io import atomic

    path.parent.mkdir(parents=True, exist_ok=True)
    atomic.write_bytes(path, json.dumps(facts, indent=1, ensure_ascii=False).encode(errors='backslashreplace'))
    print(f'written: {path}')
