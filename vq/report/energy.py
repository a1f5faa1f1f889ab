"""The section of a report on the energies of a denoiser."""

from __future__ import annotations

from html import escape

import numpy as np

from vq.io.pages.charts import Series, line_chart
from vq.io.pages.page import Page, picture, row, table
from vq.report.facts import Composition, EnergyFacts, Pixels

BINS = 20  # of the histogram of energies


def add_section(facts: EnergyFacts, page: Page, noun: str = 'images') -> None:
    words = (
        'The energy of a state or of an image is a mean over fixed times, the same for all, since an energy is known up to a '
        'constant of each time. It falls on the way from noise to images. It tells images of other kinds from those that were '
        'learned, and the sum of the energies of two classes draws images of both.'
    )
    parts = [table([''], [''], rows_of(facts, noun)), row([way(facts), *likelihoods(facts, noun)])]
    if facts.composition is not None:
        parts.append(pairs(facts.composition, noun))
    if facts.letters is not None:
        parts.append(figure('Letters, made like the images', in_rows(facts.letters)))
    page.section('energies', 'Energies', words, parts)


def rows_of(facts: EnergyFacts, noun: str) -> list[tuple[str, str]]:
    step, estimate = facts.cost
    rows = [
        (f'{noun} whose energy is lower at the end than at the start, of {facts.samples}', f'{facts.fell:.1%}'),
        ('operations of a training step, times those without an energy', f'{step:.2f}'),
        ('operations of an estimate, times those without an energy', f'{estimate:.2f}'),
    ]
    if facts.auroc is not None:
        rows.append((f'held-out {noun} against letters: area under the ROC curve of the energy', f'{facts.auroc:.3f}'))
    made = facts.composition
    if made is not None and made.one is not None and made.both is not None:
        rows.append(('two classes: the likeliest class is one of them', f'{made.one:.1%} (chance {made.chance[0]:.1%})'))
        rows.append(('two classes: the two likeliest classes are they', f'{made.both:.1%} (chance {made.chance[1]:.1%})'))
    return rows


def way(facts: EnergyFacts) -> str:
    steps = [*range(facts.curve.shape[1])]
    names = ('lower quartile', 'mean', 'upper quartile')
    lines = [Series(name, steps, list(values)) for name, values in zip(names, facts.curve, strict=True)]
    return line_chart('Energy on the way from noise', lines, 'states, from noise to the image', note='Over samples.')


def likelihoods(facts: EnergyFacts, noun: str) -> list[str]:
    """Histograms of the energies of images and of letters; nothing without them."""
    if facts.likelihood is None:
        return []
    edges = np.histogram_bin_edges(np.concatenate(facts.likelihood), BINS)
    middles = ((edges[:-1] + edges[1:]) / 2).tolist()
    lines = [
        Series(name, middles, (np.histogram(values, edges)[0] / max(len(values), 1)).tolist())
        for name, values in zip((f'held-out {noun}', 'letters'), facts.likelihood, strict=True)
    ]
    return [line_chart('Energy of images', lines, 'energy', 'share', zero=True)]


def pairs(made: Composition, noun: str) -> str:
    several = ', '.join(dict.fromkeys(f'{first} and {second}' for first, second in made.pairs))
    return figure(f'{noun.capitalize()} of two classes at once, in turns {several}', in_rows(made.images))


def figure(words: str, sheet: Pixels) -> str:
    return f'<div class="sheets"><figure><figcaption>{escape(words)}</figcaption>{picture(sheet, words)}</figure></div>'


def in_rows(images: Pixels, across: int = 10) -> Pixels:
    """(N, H, W, 3) -> one picture with rows of ``across`` images; the last row is filled with black."""
    missing = -len(images) % across
    whole = np.concatenate([images, np.zeros((missing, *images.shape[1:]), np.uint8)])
    rows = whole.reshape(-1, across, *images.shape[1:])
    return np.ascontiguousarray(np.concatenate(np.concatenate(rows, 1), 1)) if len(rows) else whole
