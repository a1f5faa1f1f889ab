"""The sections of a report on a token generator: new images, their figures, their nearest training images."""

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
EACH = 10  # images to show of each class
METRICS = {
    'agreement': ('digits that the classifier assigns to the requested class', '{:.1%}'),
    'within': ('distance within a class, relative to training digits', '{:.3f}'),
    'fd_train': ("FD to training digits, classifier's features", '{:.2f}'),
    'fd_held_out': ("FD to held-out digits, classifier's features", '{:.2f}'),
    'share_mean': ('tokens shared with the nearest training digit, mean', '{:.1%}'),
    'share_most': ('tokens shared with the nearest training digit, maximum', '{:.1%}'),
    'distinct': ('distinct token grids', '{:,}'),
    'samples': ('images', '{:,}'),
}  # key in the results: name and form


@dataclasses.dataclass
class Drawn:
    """Images drawn with the same settings."""

    images: Pixels  # (N, H, W, 3)
    asked: NDArray[np.int64]  # (N,) requested classes
    named: NDArray[np.int64]  # (N,) classes predicted by a classifier
    results: Results


@dataclasses.dataclass
class Neighbours:
    """Drawn images, and for each the training images that share the most tokens with it."""

    categories: list[str]
    images: Pixels  # (N, H, W, 3)
    training: Pixels  # (N, k, H, W, 3), nearest first
    ids: list[list[str]]  # (N, k)
    shares: NDArray[np.float64]  # (N, k)


@dataclasses.dataclass
class Completions:
    """Held-out images whose second half was resampled."""

    categories: list[str]
    ids: list[str]
    images: Pixels  # (N, H, W, 3), from all of their tokens
    kept: NDArray[np.bool_]  # (h, w): True for tokens that are kept
    made: Pixels  # (N, k, H, W, 3)
    tokens_kept: int
    completed: int  # number of images of the split
    agreement: float  # over all completed images


@dataclasses.dataclass
class GeneratorFacts:
    """All facts of the report about a generator."""

    journal: list[dict[str, Any]]  # lines of log.jsonl
    drawn: dict[str, Drawn]  # 'guided', 'unguided'
    real: Results  # the same figures of held-out images
    how: str  # sampling settings, as a sentence
    neighbours: Neighbours
    completions: Completions
    parameters: int
    seconds: float  # duration of the training command


def headline(facts: GeneratorFacts) -> list[Card]:
    ours, free = facts.drawn['guided'].results, facts.drawn['unguided'].results
    steps = [line['step'] for line in facts.journal if line['kind'] == 'train']
    return [
        Card(
            'new digits of the requested class',
            f'{100 * ours["agreement"]:.1f}',
            '%',
            f'of {ours["samples"]}, according to the classifier; without guidance {free["agreement"]:.1%}',
        ),
        Card(
            'diversity of new digits',
            f'{ours["within"]:.2f}',
            '',
            f'distance within a class, relative to real digits; without guidance {free["within"]:.2f}',
        ),
        Card(
            'tokens in common',
            f'{100 * ours["share_most"]:.0f}',
            '%',
            f'maximum of any new digit and its nearest training digit; mean {ours["share_mean"]:.0%}',
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
        'A small Llama was trained on the tokens of the training digits. It draws the tokens of a digit one after the other, '
        f"and the tokenizer's decoder turns them into pixels. {facts.how} Each row shows the first {EACH} digits of a class, "
        '0 to 9, without selection. Red frame: the classifier predicts another class.',
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
        'The distance within a class is the mean pixel distance of two images of a class, averaged over classes and divided '
        'by the same figure of the training digits: 1 means equally diverse, 0 means identical images. Two token grids share '
        'a token if they have the same code at the same position. The figures of held-out digits are those to expect of real '
        'digits. If the generator memorizes training digits, its loss on held-out digits rises, and its digits share more '
        'tokens with training digits.',
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
        'Nearest by the number of shared tokens; the percentage is that of the nearest training digit. First the first guided '
        'digit of each class, then the digits with the largest percentages.',
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
                    picture(given(image, found.kept), f'{category}, {name}: the given half'),
                    *(picture(made, f'{category}, {name}: completion {n + 1}') for n, made in enumerate(found.made[index])),
                ],
            )
        )
    page.section(
        'completions',
        'Completions of half digits',
        'The generator is given the class and the first half of the tokens of a held-out digit. It keeps the given tokens '
        f'(checked: all {found.tokens_kept:,}) and draws the others, with guidance. Pixels at the seam can differ from the '
        'original, since the decoder uses the tokens of both sides. The classifier assigns '
        f'{found.agreement:.1%} of {found.completed} such digits to the right class.',
        [stacks(['digit', 'given', 'completed', 'once more'], columns)],
    )


def class_sheet(drawn: Drawn, each: int = EACH, frame: int = 2) -> Pixels:
    """One row per class with its first ``each`` images; a red frame if the classifier predicts another class."""
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
    """An image (H, W, 3) in which cells of tokens (h, w) that are not kept are mid-grey."""
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
        f'Of {ours["samples"]} new digits the classifier assigns {100 * ours["agreement"]:.1f} % to the requested class '
        f'({100 * free["agreement"]:.1f} % without guidance). Distance within a class {ours["within"]:.2f} '
        f'({free["within"]:.2f}) of real digits; FD to training digits {ours["fd_train"]:.2f} ({free["fd_train"]:.2f}). '
        f'They share at most {100 * most:.0f} % of the tokens with a training digit. Half digits were completed, all {kept} '
        'given tokens kept.'
    )


def seconds_of(commands: Sequence[tuple[str, float]], name: str) -> float:
    """The duration of ``vq.train NAME``."""
    return next(seconds for line, seconds in commands if f' -m vq.train {name} ' in line)
