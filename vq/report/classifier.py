"""The sections of a report on a classifier: accuracy, confusion, what it gets wrong."""

from __future__ import annotations

import numpy as np

from vq.io.pages.charts import line_chart
from vq.io.pages.page import Card, Page, picture, row, stacks, table
from vq.report import training
from vq.report.facts import ClassifierFacts, Origin, Pixels

TABLED = 20  # classes of the largest confusion matrix that is a table; larger ones are pictures
WORST = 12  # pairs of classes to list


def headline(facts: ClassifierFacts, origin: Origin) -> list[Card]:
    total, right = int(facts.confusion.sum()), int(np.trace(facts.confusion))
    cards = [
        Card('accuracy, held out', f'{100 * right / max(total, 1):.1f}', '%', f'{right} of {total} images of {facts.split}'),
        Card('among the first five', f'{100 * facts.top5:.1f}', '%', f'of {len(facts.confusion)} classes'),
    ]
    if facts.seconds is not None and origin.training:
        note = f'{origin.training[-1]["step"]} steps, {facts.parameters / 1000:.0f} k parameters'
        cards.append(Card('trained in', f'{facts.seconds:.0f}', 's', note))
    return cards


def add_sections(facts: ClassifierFacts, page: Page) -> None:
    confusion(facts, page)
    mistakes(facts, page)


def confusion(facts: ClassifierFacts, page: Page) -> None:
    matrix, names = facts.confusion, names_of(facts)
    parts = []
    if len(matrix) <= TABLED:
        rows = [[name, *(str(count) if count else '' for count in line)] for name, line in zip(names, matrix, strict=True)]
        parts.append(table([''], names, rows))
    else:
        parts.append(picture(heat(matrix), f'confusion of {len(matrix)} classes'))
    off = matrix * (1 - np.eye(len(matrix), dtype=matrix.dtype))
    worst = [index for index in np.argsort(-off, axis=None, kind='stable')[:WORST] if off.flat[index]]
    if worst:
        pairs = [divmod(int(index), len(matrix)) for index in worst]
        rows = [[f'{names[true]} taken for {names[told]}', str(int(off[true, told]))] for true, told in pairs]
        parts.append(table([''], ['images'], rows))
    found = training.curve('top 1', facts.validations, 'top1')
    if found is not None:
        parts.append(row([line_chart('Accuracy on held-out images', [found], 'step')]))
    page.section(
        'confusion',
        'Confusion',
        f'Images of {facts.split}, {int(matrix.sum()):,} in all. A row is the true class, a column is the predicted class.',
        parts,
    )


def mistakes(facts: ClassifierFacts, page: Page) -> None:
    if not len(facts.images):
        return
    columns = [
        (f'{true}, not {told}', [picture(image, f'{name}: {true}, taken for {told}')])
        for image, (name, true, told) in zip(facts.images, facts.told, strict=True)
    ]
    page.section(
        'mistakes', 'Wrongly classified images', 'The true class, and the predicted one.', [stacks(['image'], columns)]
    )


def names_of(facts: ClassifierFacts) -> list[str]:
    classes = len(facts.confusion)
    return list(facts.names) if len(facts.names) == classes else [str(number) for number in range(classes)]


def heat(matrix: np.ndarray) -> Pixels:
    """Counts (K, K) as grey levels of the share of each true class, black for none, enlarged to at least 256 pixels."""
    share = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    level = np.rint(255 * np.sqrt(share)).astype(np.uint8)
    scale = max(1, -(-256 // len(matrix)))
    large = level.repeat(scale, 0).repeat(scale, 1)
    return np.repeat(large[..., None], 3, 2)
