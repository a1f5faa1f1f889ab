"""The page of ``vq data check``: one dataset or folder of images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from vq.io.pages.charts import Series, line_chart
from vq.io.pages.page import Card, Page, picture, table
from vq.runners.progress import clock

MOST = 200  # rows of a table


def write_page(path: Path, name: str, facts: Mapping[str, Any], remarks: Sequence[str], sheet: np.ndarray | None) -> None:
    """``facts``: what ``vq data check --json`` writes. ``sheet``: the sample sheet (H, W, 3)."""
    page = Page(f'Images: {name}', 'Every image was read once. Nothing was changed.')
    page.cards(headline(facts))
    if remarks:
        said = ''.join(f'<li>{escape(text)}</li>' for text in remarks)
        page.section('warnings', 'Warnings', '', [f'<ul>{said}</ul>'])
    if sheet is not None:
        page.section('samples', 'Samples', '', [f'<div class="scroll">{picture(sheet, "samples of the images")}</div>'])
    page.section('sizes', 'Sizes', sizes(facts), [counts('short side in pixels', facts['short_sides'])])
    if facts['kinds']:
        page.section('kinds', 'Kinds of images', '', [counts('kind', facts['kinds'])])
    if facts['classes']:
        classes(page, facts['classes'])
    if facts.get('pixels'):
        pixels(page, facts['pixels'])
    if facts.get('epochs'):
        epochs(page, facts['epochs'])
    if facts['bad']:
        page.section('bad', 'Cannot be read', '', [cut(['file', 'reason'], [[*row] for row in facts['bad'].items()])])
    same = {'same bytes': facts['copies'], 'same pixels in another file': facts['same_pixels']}
    rows = [[group[0], kind, ', '.join(group[1:])] for kind, groups in same.items() for group in groups]
    if rows:
        page.section('copies', 'Duplicates', '', [cut(['image', 'what', 'also in'], rows)])
    page.save(path)


def headline(facts: Mapping[str, Any]) -> list[Card]:
    splits = ', '.join(f'{count:,} {name}' for name, count in facts['splits'].items())
    copies = sum(len(group) - 1 for group in (*facts['copies'], *facts['same_pixels']))
    cards = [Card('Images', f'{facts["images"]:,}', '', splits)]
    if facts['classes']:
        cards.append(Card('Classes', f'{len(facts["classes"]):,}'))
    cards.append(Card('Bad', f'{len(facts["bad"]):,}', '', 'cannot be read'))
    cards.append(Card('Duplicates', f'{copies:,}', '', f'{len(facts["in_several_splits"]):,} groups in several splits'))
    for name, found in facts.get('epochs', {}).items():
        cards.append(Card(f'Epoch of {name}', clock(found['seconds']), '', f'{found["rate"]:,.0f} images/s, loading alone'))
    return cards


def sizes(facts: Mapping[str, Any]) -> str:
    shapes = ', '.join(f'{count:,} {name}' for name, count in facts['shapes'].items() if count)
    sides = '; '.join(
        f'{side} {facts[side]["smallest"]} to {facts[side]["largest"]}, median {facts[side]["median"]:g}'
        for side in ('width', 'height')
    )
    return f'{sides}; {shapes}. image_size={facts["image_size"]} is the largest usual size that half of the images have.'


def counts(name: str, found: Mapping[str, int]) -> str:
    return table([''], ['images'], [[key, f'{count:,}'] for key, count in found.items() if count], name)


def classes(page: Page, found: Mapping[str, Mapping[str, int]]) -> None:
    splits = [name for name in ('train', 'validation', 'test') if any(name in each for each in found.values())]
    rows = [[name, *(f'{each.get(split, 0):,}' for split in splits)] for name, each in found.items()]
    page.section('classes', 'Classes', '', [cut(['class', *splits], rows)])


def pixels(page: Page, found: Mapping[str, Any]) -> None:
    rows, charts = [], []
    for split, stats in found.items():
        if not stats['images']:
            continue
        for what in ('mean', 'std'):
            rows.append([f'{split}, {what}', *(f'{value:.6f}' for value in stats['0..1'][what])])
        lines = [
            Series(channel, range(256), [times / stats['pixels'] for times in row])
            for channel, row in zip(('red', 'green', 'blue'), stats['histogram'], strict=True)
        ]
        charts.append(line_chart(f'Values of {split}', lines, 'value', 'share of pixels', zero=True))
    words = 'Of the images as validation shows them, in [0, 1]. Sums are exact.'
    page.section('pixels', 'Pixels', words, [table([''], ['red', 'green', 'blue'], rows), *charts])


def epochs(page: Page, found: Mapping[str, Any]) -> None:
    rows = [
        [name, clock(one['seconds']), f'{one["rate"]:,.0f}', str(one['workers']), f'{one["batches"]} of {one["batch_size"]}']
        for name, one in found.items()
    ]
    words = 'Loading alone, in one process, measured over some batches.'
    page.section('epochs', 'Time of an epoch', words, [table([''], ['h:mm:ss', 'images/s', 'workers', 'batches'], rows)])


def cut(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    more = f'<p>... and {len(rows) - MOST:,} more: --json FILE lists all.</p>' if len(rows) > MOST else ''
    return table([''], head[1:], rows[:MOST], head[0]) + more
