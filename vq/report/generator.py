"""The sections of a report on whatever draws: new images, their figures, their nearest training images."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vq.io.pages.charts import Series, line_chart
from vq.io.pages.page import Card, Page, picture, row, stacks, table
from vq.report import training
from vq.report.facts import Completions, Drawn, GeneratorFacts, Neighbours, Pixels, Results
from vq.report.tokenizer import usage_charts

__all__ = ['Completions', 'Drawn', 'GeneratorFacts', 'Neighbours', 'Pixels', 'Results']

WRONG, BETWEEN = (214, 60, 60), (128, 128, 128)
EACH = 10  # images to show of each class
METRICS = {
    'agreement': ('{noun} that the classifier assigns to the requested class', '{:.1%}'),
    'within': ('distance within a class, relative to training {noun}', '{:.3f}'),
    'fd_train': ("FD to training {noun}, classifier's features", '{:.2f}'),
    'fd_held_out': ("FD to held-out {noun}, classifier's features", '{:.2f}'),
    'share_mean': ('tokens shared with the nearest training {one}, mean', '{:.1%}'),
    'share_most': ('tokens shared with the nearest training {one}, maximum', '{:.1%}'),
    'distinct': ('distinct {what}', '{:,}'),
    'samples': ('images', '{:,}'),
}  # key in the results: name and form


def headline(facts: GeneratorFacts) -> list[Card]:
    if not facts.drawn:
        return []
    first, *rest = facts.drawn.values()
    ours, free, one = first.results, rest[0].results if rest else {}, singular(facts.noun)

    def beside(key: str, form: str) -> str:
        return f'without guidance {form.format(free[key])}' if key in free else ''

    cards = []
    if 'agreement' in ours:
        note = f'of {ours["samples"]}, according to the classifier; {beside("agreement", "{:.1%}")}'.rstrip('; ')
        cards.append(Card(f'new {facts.noun} of the requested class', f'{100 * ours["agreement"]:.1f}', '%', note))
    if 'within' in ours:
        note = f'distance within a class, relative to real {facts.noun}; {beside("within", "{:.2f}")}'.rstrip('; ')
        cards.append(Card(f'diversity of new {facts.noun}', f'{ours["within"]:.2f}', '', note))
    if 'share_most' in ours:
        note = f'maximum of any new {one} and its nearest training {one}; mean {ours["share_mean"]:.0%}'
        cards.append(Card('tokens in common', f'{100 * ours["share_most"]:.0f}', '%', note))
    if 'fd_train' in ours:
        known = '' if facts.real is None else f', held-out {facts.noun} {facts.real["fd_train"]:.2f}'
        note = f'to training {facts.noun}; {beside("fd_train", "{:.2f}")}{known}'.replace('; ,', ';')
        cards.append(Card(f'FD of new {facts.noun}', f'{ours["fd_train"]:.2f}', '', note))
    steps = [line['step'] for line in facts.journal if line['kind'] == 'train']
    if facts.seconds is not None and steps:
        note = f'{steps[-1]} steps, {facts.parameters / 1000:.0f} k parameters{facts.where}'
        cards.append(Card('generator trained in', f'{facts.seconds:.0f}', 's', note))
    return cards


def singular(noun: str) -> str:
    return noun.removesuffix('s')


def add_sections(facts: GeneratorFacts, page: Page) -> None:
    for section in (samples, history, comparison, nearest, completions, statistics):
        section(facts, page)


def samples(facts: GeneratorFacts, page: Page) -> None:
    if not facts.drawn:
        return
    sheets = []
    for name, drawn in facts.drawn.items():
        several = len(np.unique(drawn.asked)) > 1
        words = f'{name}: the first {EACH} of each class' if several else f'{name}: the first {min(len(drawn.images), 100)}'
        sheets.append(f'<figure><figcaption>{words}</figcaption>{picture(class_sheet(drawn), words)}</figure>')
    drawn = next(iter(facts.drawn.values()))
    classes = np.unique(drawn.asked)
    if len(classes) > 1:
        asked = ', '.join(facts.names[number] if number < len(facts.names) else str(number) for number in classes)
        rows = f'Each row shows the first {EACH} {facts.noun} of a class, without selection. The rows, from the top: {asked}.'
    else:
        rows = f'All {facts.noun}, without selection.'
    red = ' Red frame: the classifier predicts another class.' if drawn.named is not None else ''
    page.section('drawn', f'New {facts.noun}', f'{facts.how} {rows}{red}', [f'<div class="sheets">{"".join(sheets)}</div>'])


def comparison(facts: GeneratorFacts, page: Page) -> None:
    columns: dict[str, Results] = {name: drawn.results for name, drawn in facts.drawn.items()} | facts.others
    if facts.real is not None:
        columns[f'held-out {facts.noun}'] = facts.real
    rows = [
        [
            name.format(noun=facts.noun, one=singular(facts.noun), what='token grids' if facts.tokens else facts.noun),
            *(form.format(found[key]) if key in found else '' for found in columns.values()),
        ]
        for key, (name, form) in METRICS.items()
        if any(key in found for found in columns.values())
    ]
    figures = table([''], list(columns), rows)
    words = ''
    if any('within' in found for found in columns.values()):
        words += (
            'The distance within a class is the mean pixel distance of two images of a class, averaged over classes and '
            'divided by the same figure of the training images: 1 means equally diverse, 0 means identical images. '
        )
    one = singular(facts.noun)
    if facts.tokens:
        words += 'Two token grids share a token if they have the same code at the same position. '
    words += (
        f'The figures of held-out {facts.noun} are those to expect of real {facts.noun}. If the generator memorizes training '
        f'{facts.noun}, its loss on held-out {facts.noun} rises'
    )
    words += f', and its {facts.noun} share more tokens with a training {one}.' if facts.tokens else '.'
    html = f'<div class="beside">{figures}{row([loss_chart(facts)])}</div>'
    page.section('generated', f'New {facts.noun}, measured', words, [html])


def loss_chart(facts: GeneratorFacts) -> str:
    lines, (loss, unit) = [], facts.loss
    for name, kind, key in (('training', 'train', loss), ('held out', 'eval', f'loss/{loss}')):
        found = [(line['step'], line) for line in facts.journal if line['kind'] == kind]
        line = training.curve(name, found, key)
        lines += [] if line is None else [line]
    return line_chart(
        f"The generator's loss, {unit}",
        lines or [Series('training', [], [])],
        'step',
        note='Training: means between two log lines, with dropout and dropped labels. Held out: averaged weights.',
    )


def history(facts: GeneratorFacts, page: Page) -> None:
    """One column per image, from its noise to its end."""
    if facts.history is None or not facts.drawn:
        return
    drawn = next(iter(facts.drawn.values()))
    states = len(facts.history)
    columns = []
    for place in range(facts.history.shape[1]):
        number = int(drawn.asked[place])
        about = facts.names[number] if number < len(facts.names) else str(number)
        made = [picture(facts.history[k, place], f'{about}: state {k + 1} of {states}') for k in range(states)]
        columns.append((about, made))
    rows = [*('' for _ in range(states - 1)), 'end']
    page.section(
        'history',
        'From noise to images',
        f'Evenly spaced states of the sampler on the way to the first {facts.noun}, decoded as they are.',
        [stacks(rows, columns)],
    )


def nearest(facts: GeneratorFacts, page: Page) -> None:
    found, one = facts.neighbours, singular(facts.noun)
    if found is None:
        return
    columns = []
    for index, category in enumerate(found.categories):
        shares = found.shares[index]
        near = [
            picture(image, f'training {one} {name}, shares {share:.0%} of the tokens with new {one} {index}')
            for image, name, share in zip(found.training[index], found.ids[index], shares, strict=True)
        ]
        columns.append(
            (f'{category}: {shares[0]:.0%}', [picture(found.images[index], f'new {one} {index}: {category}'), *near])
        )
    page.section(
        'nearest',
        f'New {facts.noun} and the training {facts.noun} nearest to them',
        f'Nearest by the number of shared tokens; the percentage is that of the nearest training {one}. First the first {one} '
        f'of each class, then the {facts.noun} with the largest percentages.',
        [stacks(['new', 'nearest', 'second', 'third'][: 1 + found.training.shape[1]], columns)],
    )


def completions(facts: GeneratorFacts, page: Page) -> None:
    found, one = facts.completions, singular(facts.noun)
    if found is None:
        return
    columns = []
    for index, (category, name) in enumerate(zip(found.categories, found.ids, strict=True)):
        image, about = found.images[index], f'{category}, {name}'.removeprefix(', ')
        columns.append(
            (
                category,
                [
                    picture(image, f'{about}: from all of its tokens'),
                    picture(given(image, found.kept), f'{about}: the given half'),
                    *(picture(made, f'{about}: completion {n + 1}') for n, made in enumerate(found.made[index])),
                ],
            )
        )
    right = ''
    if found.agreement is not None:
        right = f' The classifier assigns {found.agreement:.1%} of {found.completed} such {facts.noun} to the right class.'
    page.section(
        'completions',
        f'Completions of half {facts.noun}',
        f'The generator is given the class, if it knows classes, and the first half of the tokens of a held-out {one}. It '
        f'keeps the given tokens (checked: all {found.tokens_kept:,}) and draws the others. Pixels at the seam can differ '
        f'from the original, since the decoder uses the tokens of both sides.{right}',
        [stacks([one, 'given', 'completed', 'once more'], columns)],
    )


def statistics(facts: GeneratorFacts, page: Page) -> None:
    """How often the generator draws each code, beside how often real images have it."""
    if facts.counts:
        words = 'A generator that has learned the tokens uses the codes as often as real images do.'
        page.section('token_statistics', 'Codes that are drawn', words, [row(usage_charts(facts.counts))])


def class_sheet(drawn: Drawn, each: int = EACH, frame: int = 2) -> Pixels:
    """One row per class with its first ``each`` images, or all images in rows if there is one class; a red frame if the
    classifier predicts another class."""
    classes, size = np.unique(drawn.asked), drawn.images.shape[1]
    rows = [np.flatnonzero(drawn.asked == category)[:each] for category in classes]
    if len(classes) == 1:
        rows = [np.arange(start, min(start + each, len(drawn.images))) for start in range(0, len(drawn.images), each)][:each]
    cell = size + 2 * frame
    sheet = np.full((len(rows) * cell, each * cell, 3), BETWEEN, np.uint8)
    for line, row_of in enumerate(rows):
        for place, index in enumerate(row_of):
            top, left = line * cell, place * cell
            if drawn.named is not None and drawn.named[index] != drawn.asked[index]:
                sheet[top : top + cell, left : left + cell] = WRONG
            sheet[top + frame : top + frame + size, left + frame : left + frame + size] = drawn.images[index]
    return sheet


def given(image: Pixels, kept: NDArray[np.bool_]) -> Pixels:
    """An image (H, W, 3) in which cells of tokens (h, w) that are not kept are mid-grey."""
    scale = image.shape[0] // kept.shape[0], image.shape[1] // kept.shape[1]
    mask = np.kron(kept, np.ones(scale, bool)).astype(bool)
    shown = image.copy()
    shown[~mask] = BETWEEN
    return shown
