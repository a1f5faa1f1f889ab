"""The page of ``python -m vq.demo understanding``: tokenizers of pixels and of a teacher's features, side by side."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from html import escape
from statistics import mean
from typing import Any

from vq.io.pages.charts import line_chart
from vq.io.pages.page import Card, Page, picture, row, shell, stacks, table
from vq.report.facts import Drawn, Pixels, Results
from vq.report.generator import EACH, class_sheet
from vq.report.training import curve


@dataclasses.dataclass
class Side:
    """A tokenizer with its decoder, probe and generator, measured."""

    title: str
    learns: str  # what its codes are trained to predict
    own_decoder: bool  # False: the decoder was trained afterwards
    results: Results
    reconstructions: Pixels  # of the images that are shown
    drawn: Drawn
    journal: list[dict[str, Any]]  # of its generator
    parameters: int  # of its generator
    seconds: float  # of all its trainings

    @property
    def of_features(self) -> bool:
        return not self.own_decoder


@dataclasses.dataclass
class Understanding:
    """The facts of the page."""

    sides: dict[str, Side]
    tokens: int  # of an image
    codes: int
    categories: list[str]  # of the images that are shown
    images: Pixels
    measured: int  # held-out images
    learned: int  # training images
    accuracy: dict[str, float]  # of teacher and judge on held-out images
    fd_real: float  # of training images to held-out ones
    commands: list[str]
    machine: Sequence[tuple[str, str]]
    tiny: bool  # a dry run


@dataclasses.dataclass(frozen=True)
class Column:
    """A figure of the table."""

    words: str
    form: str
    higher: bool | None = None  # whether higher is better; None: neither

    def show(self, value: float) -> str:
        return self.form.format(value)


COLUMNS = {
    'psnr': Column('PSNR, dB', '{:.2f}', True),
    'reconstructed_fd': Column('FD of reconstructions', '{:.2f}', False),
    'reconstructed_recognised': Column('reconstructions recognised', '{:.1%}', True),
    'codebook_usage': Column('codes in use', '{:.1%}', None),
    'probe': Column('linear probe, accuracy', '{:.1%}', True),
    'token_loss': Column('token cross-entropy, nats', '{:.3f}', False),
    'token_bits': Column('bits of an image', '{:.1f}', False),
    'agreement': Column('new digits of the requested class', '{:.1%}', True),
    'fd': Column('FD of new digits', '{:.2f}', False),
    'within': Column('diversity of new digits', '{:.2f}', None),
}


@dataclasses.dataclass(frozen=True)
class Claim:
    """What the paper finds, as a comparison of the means of both kinds of tokenizers."""

    words: str
    key: str
    features_higher: bool

    def verdict(self, facts: Understanding) -> tuple[bool, str]:
        """Whether it comes out here, and the two means."""
        ours, others = (
            mean(side.results[self.key] for side in facts.sides.values() if side.of_features is kind) for kind in (True, False)
        )
        column = COLUMNS[self.key]
        return (ours > others) is self.features_higher, f'{column.show(ours)} against {column.show(others)}'


CLAIMS = (
    Claim('Codes of features tell more about the class: the linear probe is more accurate.', 'probe', True),
    Claim('Tokens of features are easier to predict: the cross-entropy of the same network is lower.', 'token_loss', False),
    Claim('Generators of such tokens draw what was asked for more often.', 'agreement', True),
    Claim('What they draw is closer to real images: FD is lower.', 'fd', False),
    Claim('They need not reconstruct well: PSNR is lower.', 'psnr', False),
)


def build_page(facts: Understanding) -> Page:
    said = 'Dry run: tiny models after a few steps. All figures below are meaningless. ' if facts.tiny else ''
    page = Page(
        'Tokens of pixels and tokens of features, on handwritten digits',
        f'{said}Four tokenizers of {facts.tokens} tokens and {facts.codes} codes: VQGAN and FSQ learn to reproduce pixels; '
        'the codes of VQ-KD and Cluster stand for features of a classifier, the teacher, which was trained on the same '
        f'{facts.learned:,} digits. Pixels of those two come from a decoder that was trained afterwards. On each, the same '
        'linear probe and the same autoregressive network were trained. All figures are of one training each, on '
        f'{facts.measured} held-out digits.',
    )
    page.cards(cards(facts))
    results(facts, page)
    claims(facts, page)
    reconstructions(facts, page)
    drawn(facts, page)
    losses(facts, page)
    machine = '; '.join(f'{name}: {value}' for name, value in facts.machine)
    words = f'The parts run beside each other, on as many cores as there are. {machine}.'
    page.section('commands', 'Reproduce it', words, [shell([(line, '') for line in facts.commands])])
    return page


def best(facts: Understanding, key: str) -> Side:
    """The tokenizer with the best figure."""
    sides, sign = list(facts.sides.values()), 1 if COLUMNS[key].higher else -1
    return max(sides, key=lambda side: float(sign * side.results[key]))


def cards(facts: Understanding) -> list[Card]:
    found = []
    for key in ('psnr', 'probe', 'token_bits', 'agreement', 'fd'):
        side, column = best(facts, key), COLUMNS[key]
        others = ', '.join(
            f'{other.title} {column.show(other.results[key])}' for other in facts.sides.values() if other is not side
        )
        found.append(Card(column.words, column.show(side.results[key]), f' {side.title}', others))
    return found


def results(facts: Understanding, page: Page) -> None:
    sides = list(facts.sides.values())
    lines = [['codes stand for', *(side.learns for side in sides)]]
    lines += [
        ['decoder', *('trained with the codes' if side.own_decoder else 'trained afterwards' for side in sides)],
        ['tokens, codes', *(f'{facts.tokens}, {facts.codes}' for _ in sides)],
    ]
    lines += [[column.words, *(column.show(side.results[key]) for side in sides)] for key, column in COLUMNS.items()]
    lines += [['trainings, seconds', *(f'{side.seconds:.0f}' for side in sides)]]
    page.section(
        'results',
        'Results',
        'Cross-entropy: of the tokens of held-out digits, given their class, mean over positions; all tokens of an image '
        'together take the bits below it. Classes of reconstructions and of new digits are those that a second classifier '
        f'predicts, not the teacher; it recognises {facts.accuracy["judge"]:.1%} of the held-out digits themselves '
        f'(the teacher {facts.accuracy["teacher"]:.1%}). FD is the Fréchet distance in its features to held-out digits; of '
        f'training digits it is {facts.fd_real:.2f}. Diversity is the distance within a class, relative to training digits.',
        [table([''], [side.title for side in sides], lines)],
    )


def claims(facts: Understanding, page: Page) -> None:
    found = [(claim, *claim.verdict(facts)) for claim in CLAIMS]
    lines = ''.join(
        f'<li><strong>{"As in the paper" if holds else "Not as in the paper"}</strong>: {escape(claim.words)} '
        f'Here: {escape(figures)}.</li>'
        for claim, holds, figures in found
    )
    page.section(
        'claims',
        'Beside the findings of the paper',
        'Wang et al. 2024 (arXiv 2411.04406) compare such tokenizers on ImageNet, with large teachers. '
        'Each line compares the mean of VQ-KD and Cluster with the mean of VQGAN and FSQ.',
        [f'<ul>{lines}</ul>'],
    )


def reconstructions(facts: Understanding, page: Page) -> None:
    sides = list(facts.sides.values())
    columns = []
    for index, category in enumerate(facts.categories):
        pictures = [picture(facts.images[index], f'{index}: {category}')]
        pictures += [picture(side.reconstructions[index], f'{index}: {category}, {side.title}') for side in sides]
        columns.append((category, pictures))
    page.section(
        'reconstructions',
        'Digits, decoded from their tokens',
        'The first two of each class, without selection.',
        [stacks(['digit', *(side.title for side in sides)], columns)],
    )


def drawn(facts: Understanding, page: Page) -> None:
    sheets = ''.join(
        f'<figure><figcaption>{escape(side.title)}</figcaption>{picture(class_sheet(side.drawn), f"drawn: {side.title}")}'
        '</figure>'
        for side in facts.sides.values()
    )
    page.section(
        'drawn',
        'New digits',
        f'The first {EACH} of each class, a row for each. Red frame: the classifier predicts another class.',
        [f'<div class="sheets">{sheets}</div>'],
    )


def losses(facts: Understanding, page: Page) -> None:
    charts = []
    for title, kind, key in (
        ('Cross-entropy on training digits, nats per token', 'train', 'cross_entropy'),
        ('Cross-entropy on the validation digits, nats per token', 'eval', 'loss/cross_entropy'),
    ):
        found = [
            curve(side.title, [(line['step'], line) for line in side.journal if line['kind'] == kind], key)
            for side in facts.sides.values()
        ]
        lines = [line for line in found if line is not None]
        charts += [line_chart(title, lines, 'step')] if lines else []
    size = next(iter(facts.sides.values())).parameters
    page.section(
        'losses', 'The same network on each', f'{size / 1000:.0f} k parameters, the same steps and settings.', [row(charts)]
    )


def sentence(facts: Understanding) -> str:
    """The table and the findings, for a terminal."""
    sides = list(facts.sides.values())
    first = max(len(column.words) for column in COLUMNS.values())
    lines = [' ' * first + ''.join(f'{side.title:>12}' for side in sides)]
    for key, column in COLUMNS.items():
        lines.append(f'{column.words:<{first}}' + ''.join(f'{column.show(side.results[key]):>12}' for side in sides))
    for claim in CLAIMS:
        holds, figures = claim.verdict(facts)
        lines.append(f'{"as in the paper" if holds else "NOT as in the paper"}: {claim.words} Here: {figures}.')
    return '\n'.join(lines)
