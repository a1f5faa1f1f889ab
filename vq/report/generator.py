"""What a report says of a generator of tokens: new images, what was measured of them, what they are nearest to."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vq.io.pages.charts import Series, line_chart
from vq.io.pages.page import Card, Page, picture, row, stacks, table

Pixels = NDArray[np.uint8]
Results = Mapping[str, Any]

WRONG, BETWEEN = (214, 60, 60), (128, 128, 128)
EACH = 10  # images shown of each class
METRICS = {
    'agreement': ('digits the classifier names as asked for', '{:.1%}'),
    'within': ('distance within a class, in that of training digits', '{:.3f}'),
    'fd_train': ("FD to training digits, classifier's features", '{:.2f}'),
    'fd_held_out': ("FD to held-out digits, classifier's features", '{:.2f}'),
    'share_mean': ('tokens shared with the nearest training digit, mean', '{:.1%}'),
    'share_most': ('the same, the most of any image', '{:.1%}'),
    'distinct': ('different grids of tokens', '{:,}'),
    'samples': ('images', '{:,}'),
}  # key in the results: name and form


@dataclasses.dataclass
class Drawn:
    """Images that were drawn in one way."""

    images: Pixels  # (N, H, W, 3)
    asked: NDArray[np.int64]  # (N,) classes
    named: NDArray[np.int64]  # (N,) what a classifier says they are
    results: Results


@dataclasses.dataclass
class Neighbours:
    """Images that were drawn, and the training images that share most tokens with each."""

    categories: list[str]
    images: Pixels  # (N, H, W, 3)
    training: Pixels  # (N, k, H, W, 3), nearest first
    ids: list[list[str]]  # (N, k)
    shares: NDArray[np.float64]  # (N, k)


@dataclasses.dataclass
class Completions:
    """Held-out images whose second half was drawn anew."""

    categories: list[str]
    ids: list[str]
    images: Pixels  # (N, H, W, 3), from all of their tokens
    kept: NDArray[np.bool_]  # (h, w): the tokens that stay
    made: Pixels  # (N, k, H, W, 3)
    tokens_kept: int
    completed: int  # images of the split
    agreement: float  # of all that were completed


@dataclasses.dataclass
class GeneratorFacts:
    """Everything the report says of a generator."""

    journal: list[dict[str, Any]]  # lines of log.jsonl
    drawn: dict[str, Drawn]  # 'guided', 'unguided'
    real: Results  # the same figures of held-out images
    how: str  # how it is drawn from, in words
    neighbours: Neighbours
    completions: Completions
    parameters: int
    seconds: float  # of the command that trained it


def headline(facts: GeneratorFacts) -> list[Card]:
    ours, free = facts.drawn['guided'].results, facts.drawn['unguided'].results
    steps = [line['step'] for line in facts.journal if line['kind'] == 'train']
    return [
        Card(
            'new digits as asked for',
            f'{100 * ours["agreement"]:.1f}',
            '%',
            f'of {ours["samples"]}, as the classifier sees them; without guidance {free["agreement"]:.1%}',
        ),
        Card(
            'their diversity',
            f'{ours["within"]:.2f}',
            '',
            f'distance within a class, in that of real digits; without guidance {free["within"]:.2f}',
        ),
        Card(
            'tokens in common',
            f'{100 * ours["share_most"]:.0f}',
            '%',
            f'the most any new digit shares with a training digit; mean of the nearest {ours["share_mean"]:.0%}',
        ),
        Card(
            'FD of new digits',
            f'{ours["fd_train"]:.2f}',
            '',
            f'to training digits; without guidance {free["fd_train"]:.2f}, held-out digits {facts.real["fd_train"]:.2f}',
        ),
        Card(
            'generator trained in',
            f'{facts.seconds:.0f}',
            's',
            f'{steps[-1]} steps, {facts.parameters / 1000:.0f} k parameters, on the CPU',
        ),
    ]


def add_sections(facts: GeneratorFacts, page: Page) -> None:
    for section in (samples, comparison, nearest, completions):
        section(facts, page)


def samples(facts: GeneratorFacts, page: Page) -> None:
    sheets = []
    for name, drawn in facts.drawn.items():
        words = f'{name}: the first {EACH} of each class'
        sheets.append(f'<figure><figcaption>{words}</figcaption>{picture(class_sheet(drawn), words)}</figure>')
    page.section(
        'drawn',
        'New digits',
        'A small Llama learned the tokens of the training digits, and draws a class one token after the other; the decoder '
        f'makes a picture of them. {facts.how} A row is a class, 0 to 9, with the first {EACH} that were drawn of it: nobody '
        'picked them. A red frame: the classifier says it is another digit.',
        [f'<div class="sheets">{"".join(sheets)}</div>'],
    )


def comparison(facts: GeneratorFacts, page: Page) -> None:
    columns: dict[str, Results] = {name: drawn.results for name, drawn in facts.drawn.items()} | {
        'held-out digits': facts.real
    }
    rows = [
        [name, *(form.format(found[key]) if key in found else '' for found in columns.values())]
        for key, (name, form) in METRICS.items()
    ]
    figures = table([''], list(columns), rows)
    page.section(
        'generated',
        'New digits, measured',
        'The distance within a class is the mean distance of the pixels of two images of it, mean over classes, divided by '
        'that of the training digits: 1 is as different as they are, 0 the same image again. Two grids share a token where '
        'the same place holds the same code. Held-out digits show what to expect of real ones. The loss on held-out digits '
        'rises when the generator learns training digits by heart; what it draws then shares more tokens with them.',
        [f'<div class="beside">{figures}{row([loss_chart(facts)])}</div>'],
    )


def loss_chart(facts: GeneratorFacts) -> str:
    lines = []
    for name, kind, key in (('training', 'train', 'cross_entropy'), ('held out', 'eval', 'loss/cross_entropy')):
        found = [line for line in facts.journal if line['kind'] == kind and key in line]
        if found:
            lines.append(Series(name, [line['step'] for line in found], [line[key] for line in found]))
    return line_chart(
        "The generator's loss, nats per token",
        lines,
        'step',
        note='Training: means between two log lines, with dropout and dropped labels. Held out: averaged weights.',
    )


def nearest(facts: GeneratorFacts, page: Page) -> None:
    found = facts.neighbours
    columns = []
    for index, category in enumerate(found.categories):
        shares = found.shares[index]
        near = [
            picture(image, f'training digit {name}, shares {share:.0%} of the tokens with new digit {index}')
            for image, name, share in zip(found.training[index], found.ids[index], shares, strict=True)
        ]
        columns.append(
            (f'{category}: {shares[0]:.0%}', [picture(found.images[index], f'new digit {index}: {category}'), *near])
        )
    page.section(
        'nearest',
        'New digits and the training digits nearest to them',
        'By the number of tokens they share, in percent the nearest. The first guided one of each class, and then those that '
        'share the most of all.',
        [stacks(['new', 'nearest', 'second', 'third'], columns)],
    )


def completions(facts: GeneratorFacts, page: Page) -> None:
    found = facts.completions
    columns = []
    for index, (category, name) in enumerate(zip(found.categories, found.ids, strict=True)):
        image = found.images[index]
        columns.append(
            (
                category,
                [
                    picture(image, f'{category}, {name}: from all of its tokens'),
                    picture(given(image, found.kept), f'{category}, {name}: the half that is given'),
                    *(picture(made, f'{category}, {name}: completion {n + 1}') for n, made in enumerate(found.made[index])),
                ],
            )
        )
    page.section(
        'completions',
        'Second halves drawn anew',
        'Held-out digits of which the generator is given the class and the first half of the tokens. It keeps these '
        f'(checked: all {found.tokens_kept:,} of them) and draws the others, with guidance. Pixels at the seam may differ: '
        f'the decoder sees both sides. The classifier names {found.agreement:.1%} of {found.completed} such digits right.',
        [stacks(['digit', 'given', 'completed', 'once more'], columns)],
    )


def class_sheet(drawn: Drawn, each: int = EACH, frame: int = 2) -> Pixels:
    """The first ``each`` images of each class in a row of their own; framed in red where the classifier disagrees."""
    count, size = len(np.unique(drawn.asked)), drawn.images.shape[1]
    cell = size + 2 * frame
    sheet = np.full((count * cell, each * cell, 3), BETWEEN, np.uint8)
    for line, category in enumerate(np.unique(drawn.asked)):
        for place, index in enumerate(np.flatnonzero(drawn.asked == category)[:each]):
            top, left = line * cell, place * cell
            if drawn.named[index] != category:
                sheet[top : top + cell, left : left + cell] = WRONG
            sheet[top + frame : top + frame + size, left + frame : left + frame + size] = drawn.images[index]
    return sheet


def given(image: Pixels, kept: NDArray[np.bool_]) -> Pixels:
    """An image (H, W, 3) with mid-grey where its tokens (h, w) are not kept."""
    scale = image.shape[0] // kept.shape[0], image.shape[1] // kept.shape[1]
    mask = np.kron(kept, np.ones(scale, bool)).astype(bool)
    shown = image.copy()
    shown[~mask] = BETWEEN
    return shown


def sentence(facts: GeneratorFacts) -> str:
    """The headline in words, for a terminal."""
    ours, free = facts.drawn['guided'].results, facts.drawn['unguided'].results
    most, kept = max(ours['share_most'], free['share_most']), facts.completions.tokens_kept
    return (
        f'Of {ours["samples"]} new digits the classifier names {100 * ours["agreement"]:.1f} % as asked for '
        f'({100 * free["agreement"]:.1f} % without guidance); distance within a class {ours["within"]:.2f} '
        f'({free["within"]:.2f}) of real digits; FD to training digits {ours["fd_train"]:.2f} ({free["fd_train"]:.2f}); they '
        f'share at most {100 * most:.0f} % of the tokens with a training digit. Half images were completed, all {kept} given '
        'tokens kept.'
    )


def seconds_of(commands: Sequence[tuple[str, float]], name: str) -> float:
    """What ``vq.train NAME`` took."""
    return next(seconds for line, seconds in commands if f' -m vq.train {name} ' in line)
