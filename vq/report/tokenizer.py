"""The report of a tokenizer's run: an HTML page from the results of commands."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from html import escape
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vq.io.pages.charts import Series, level_bars, line_chart, sorted_bars
from vq.io.pages.page import Card, Page, folded, picture, row, shell, stacks, table
from vq.io.pages.scales import show
from vq.io.pictures import token_map
from vq.report import generator as of_generator
from vq.report.generator import GeneratorFacts, Pixels, Results, seconds_of

METRICS = {
    'psnr': ('PSNR, dB', '{:.2f}'),
    'ssim': ('SSIM', '{:.4f}'),
    'l1': ('L1', '{:.4f}'),
    'mse': ('MSE', '{:.5f}'),
    'codebook_usage': ('codebook usage', '{:.1%}'),
    'fd': ("FD, classifier's features", '{:.2f}'),
    'recognised': ('accuracy of a classifier', '{:.1%}'),
    'perplexity': ('perplexity', '{:.1f}'),
    'dead_codes': ('codes never used', '{:.0f}'),
    'samples': ('images', '{}'),
}  # key in the results: name and form


@dataclasses.dataclass
class Samples:
    """Held-out images with their reconstructions and tokens."""

    categories: list[str]
    ids: list[str]
    images: Pixels  # (N, H, W, 3)
    reconstructions: Pixels  # (N, H, W, 3)
    baseline: Pixels  # (N, H, W, 3)
    tokens: NDArray[np.int64]  # (N, h, w)


@dataclasses.dataclass
class Facts:
    """All facts of the report."""

    name: str  # of the run
    journal: list[dict[str, Any]]  # lines of log.jsonl
    validations: Sequence[tuple[int, Results]]  # (step, results) on the first held-out split, in order
    held_out: dict[str, tuple[Results, Results]]  # split -> (tokenizer, baseline)
    classifier: Results  # of the classifier that evaluates reconstructions, on real digits
    samples: Samples
    counts: dict[str, list[int]]  # split -> uses of each code
    code_pictures: Pixels  # (K, p, p, 3)
    baseline_pictures: Pixels  # (K, p, p, 3)
    train_images: int
    parameters: int
    image_size: int
    bits: float  # per token
    commands: list[tuple[str, float]]  # (as typed, seconds)
    config: str
    machine: list[tuple[str, str]]
    tiny: bool = False  # a dry run: everything is small, and figures are meaningless
    generator: GeneratorFacts | None = None  # of a generator trained on the tokens


def build_page(facts: Facts, title: str, lead: str) -> Page:
    page = Page(
        title, ('Dry run: a tiny model after a few steps. All figures below are meaningless. ' if facts.tiny else '') + lead
    )
    page.cards([*headline(facts), *([] if facts.generator is None else of_generator.headline(facts.generator))])
    sections: list[Callable[[Facts, Page], None]] = [reconstructions, comparison, training, maps, usage, codebook]
    for section in sections:
        section(facts, page)
    if facts.generator is not None:
        of_generator.add_sections(facts.generator, page)
    details(facts, page)
    return page


def headline(facts: Facts) -> list[Card]:
    split, (ours, baseline) = next(iter(facts.held_out.items()))
    classifier = facts.classifier
    tokens = facts.samples.tokens[0].size
    raw = facts.image_size**2 * 24
    bits = tokens * facts.bits
    train = [line for line in facts.journal if line['kind'] == 'train']
    gain = ours['psnr'] - baseline['psnr']
    return [
        Card('PSNR, held out', f'{ours["psnr"]:.1f}', 'dB', f'{ours["samples"]} images of {split}, never trained on'),
        Card('against k-means', f'{gain:+.1f}', 'dB', f'k-means on raw patches: {baseline["psnr"]:.1f} dB'),
        Card(
            'codebook usage',
            f'{100 * ours["codebook_usage"]:.1f}',
            '%',
            f'{len(facts.code_pictures) - int(ours["dead_codes"])} of {len(facts.code_pictures)} codes, on {split}',
        ),
        Card(
            'FD of reconstructions',
            f'{ours["fd"]:.2f}',
            '',
            f'k-means: {baseline["fd"]:.2f}; features of a classifier with {classifier["top1"]:.1%} accuracy on real digits',
        ),
        Card(
            'still recognised',
            f'{100 * ours["recognised"]:.1f}',
            '%',
            f"the classifier's accuracy on reconstructions; k-means: {baseline['recognised']:.1%}",
        ),
        Card('an image is', f'{bits:.0f}', 'bits', f'{tokens} tokens of {facts.bits:g} bits; raw pixels: {show(raw)}'),
        Card(
            'tokenizer trained in',
            f'{seconds_of(facts.commands, facts.name):.0f}',
            's',
            f'{train[-1]["step"]} steps, {facts.parameters / 1000:.0f} k parameters, on the CPU',
        ),
    ]


def comparison(facts: Facts, page: Page) -> None:
    columns = [found for pair in facts.held_out.values() for found in pair]
    rows = [
        [name, *(form.format(found[key]) for found in columns)]
        for key, (name, form) in METRICS.items()
        if all(key in found for found in columns)
    ]
    _, (ours, baseline) = next(iter(facts.held_out.items()))
    figures = table(list(facts.held_out), ['tokenizer', 'k-means'], rows)
    bars = level_bars(
        'PSNR, held out', [('tokenizer', ours['psnr'], 's0'), ('k-means on raw patches', baseline['psnr'], 's1')], 'dB'
    )
    page.section(
        'metrics',
        'Measured against k-means',
        'k-means on raw pixel patches has the same number of codes, the same number of tokens per image and the same '
        'training images. It is computed for this report and measured by the same code. PSNR is the mean over images of the '
        'PSNR on 8-bit pixels. A code counts as used if any image of the split has it. FD is the Frechet distance between '
        'reconstructions and their originals in the features of a small classifier, so it cannot be compared with figures of '
        f'other classifiers. Accuracy of this classifier on real digits of {next(iter(facts.held_out))}: '
        f'{facts.classifier["top1"]:.1%}.',
        [f'<div class="beside">{figures}{bars}</div>'],
    )


def training(facts: Facts, page: Page) -> None:
    train = [line for line in facts.journal if line['kind'] == 'train']
    codes = [line for line in facts.journal if line['kind'] == 'codebook']
    steps = [line['step'] for line in train]
    names = [name for name, value in train[-1].items() if isinstance(value, float) and name not in ('epoch', 'total')]
    losses = [Series(name, steps, [line.get(name, float('nan')) for line in train]) for name in names]
    rates = [Series(name, steps, [line['lr'][name] for line in train]) for name in train[-1]['lr']]
    checked = [step for step, _ in facts.validations]
    psnr = Series('tokenizer', checked, [found['psnr'] for _, found in facts.validations])
    baseline = next(iter(facts.held_out.values()))[1]
    charts = [
        line_chart(
            'Training losses', losses, 'step', log=True, note='Means between two log lines, with the weights of the losses.'
        ),
        line_chart(
            'PSNR on held-out images, dB',
            [psnr],
            'step',
            references=[('k-means', baseline['psnr'])],
            note='Each checkpoint, with averaged weights. The report uses the last checkpoint, not the best.',
        ),
        line_chart('Learning rate', rates, 'step', zero=True),
    ]
    if codes:
        windows = [line['step'] for line in codes]
        charts.append(
            line_chart(
                'Codes in use during training',
                [
                    Series('used at all', windows, [line['usage'] * len(facts.code_pictures) for line in codes]),
                    Series('perplexity', windows, [line['perplexity'] for line in codes]),
                ],
                'step',
                zero=True,
                note=f'In windows of {windows[0]} steps. Dead codes are reinitialized with current features.',
            )
        )
    page.section('training', 'Training', '', [row(charts)])


def reconstructions(facts: Facts, page: Page) -> None:
    found = facts.samples
    error = np.abs(found.images.astype(int) - found.reconstructions)
    columns = []
    for index, category in enumerate(found.categories):
        psnr = -10 * np.log10(max(float((error[index] ** 2).mean()) / 255**2, 1e-10))
        name = f'{category}, {found.ids[index]}'
        columns.append(
            (
                category,
                [
                    picture(found.images[index], f'{name}: input'),
                    picture(found.reconstructions[index], f'{name}: reconstruction, {psnr:.1f} dB'),
                    picture(np.minimum(4 * error[index], 255).astype(np.uint8), f'{name}: error times 4'),
                    picture(found.baseline[index], f'{name}: k-means on raw patches'),
                ],
            )
        )
    page.section(
        'reconstructions',
        'Reconstructions of held-out digits',
        'The first three of each class, decoded from the token files alone. The last row shows k-means on raw patches, with '
        'the same number of tokens and codes.',
        [stacks(['input', 'reconstruction', 'error, 4 fold', 'k-means'], columns)],
    )


def maps(facts: Facts, page: Page) -> None:
    found = facts.samples
    shown: dict[str, int] = {}
    for index, category in enumerate(found.categories):
        shown.setdefault(category, index)
    html = ''.join(
        f'<div class="map">{picture(found.images[index], f"{category}: input")}'
        f'{token_picture(found.tokens[index], category)}</div>'
        for category, index in shown.items()
    )
    page.section(
        'tokens',
        'Token maps',
        'The output of the tokenizer: one number per cell. A code has the same colour everywhere; similar codes do not have '
        'similar colours.',
        [f'<div class="maps">{html}</div>'],
    )


def usage(facts: Facts, page: Page) -> None:
    charts = [
        sorted_bars(
            f'Tokens of {split}: {show(sum(counts))}',
            counts,
            'codes, most used first',
            'uses, log scale',
            note=f'{np.count_nonzero(counts)} of {len(counts)} codes used; perplexity {perplexity(counts):.0f}.',
        )
        for split, counts in facts.counts.items()
    ]
    page.section('usage', 'Codebook usage', '', [row(charts)])


def codebook(facts: Facts, page: Page) -> None:
    counts = next(iter(facts.counts.values()))
    html = [
        f'<figure><figcaption>{escape(title)}</figcaption>{picture(tile(patches), title)}</figure>'
        for title, patches in (
            ('tokenizer', ordered(facts.code_pictures, counts)),
            ('k-means', ordered(facts.baseline_pictures, None)),
        )
    ]
    page.section(
        'codes',
        'The codebook as pictures',
        'Each code of the tokenizer is shown as the mean of its training patches (crossed out if unused). These means are '
        'softer than the codes of k-means, which are patches themselves: the decoder computes a patch from its code and from '
        'the codes around it. Sorted by brightness.',
        [f'<div class="sheets">{"".join(html)}</div>'],
    )


def details(facts: Facts, page: Page) -> None:
    commands = [(command, f'{seconds:.1f} s') for command, seconds in facts.commands]
    page.section(
        'commands',
        'Reproduce it',
        'The demo ran these commands in this order; the time above a command is its duration. With two cores the classifier '
        'trains at the same time as the tokenizer. ' + '; '.join(f'{name}: {value}' for name, value in facts.machine) + '.',
        [shell(commands), folded('The composed config', facts.config)],
    )


def token_picture(tokens: NDArray[np.int64], category: str) -> str:
    """Tokens (h, w) as an SVG of coloured cells with their numbers."""
    height, width = tokens.shape
    colours = token_map(torch.from_numpy(tokens), height).permute(1, 2, 0).tolist()  # (h, w, 3)
    cells = []
    for y in range(height):
        for x in range(width):
            red, green, blue = colours[y][x]
            ink = '#000' if 0.299 * red + 0.587 * green + 0.114 * blue > 120 else '#fff'
            cells.append(
                f'<rect x="{x * 26}" y="{y * 26}" width="26.2" height="26.2" fill="rgb({red},{green},{blue})"/>'
                f'<text x="{x * 26 + 13}" y="{y * 26 + 17}" text-anchor="middle" style="fill:{ink}">{tokens[y, x]}</text>'
            )
    return (
        f'<svg viewBox="0 0 {26 * width} {26 * height}" role="img" aria-label="tokens of a {escape(category)}: '
        f'{" ".join(map(str, tokens.flatten()))}">{"".join(cells)}</svg>'
    )


def ordered(patches: Pixels, counts: Sequence[int] | None) -> Pixels:
    """Patches (K, p, p, 3) sorted from dark to bright; patches of unused codes are crossed out and last."""
    keys = patches.reshape(len(patches), -1).mean(1)
    shown = patches.copy()
    if counts is not None:
        unused = np.asarray(counts) == 0
        diagonal = np.arange(patches.shape[1])
        for index in np.flatnonzero(unused):
            shown[index] = 0
            shown[index, diagonal, diagonal] = shown[index, diagonal, diagonal[::-1]] = (220, 60, 60)
        keys = np.where(unused, np.inf, keys)
    return shown[np.argsort(keys, kind='stable')]


def tile(patches: Pixels, gap: int = 1) -> Pixels:
    """(K, p, p, 3) -> one nearly square sheet, mid-grey between the patches."""
    count, size = patches.shape[:2]
    columns = int(np.ceil(np.sqrt(count)))
    rows = -(-count // columns)
    sheet = np.full((rows * (size + gap) + gap, columns * (size + gap) + gap, 3), 128, np.uint8)
    for index, patch in enumerate(patches):
        top, left = gap + index // columns * (size + gap), gap + index % columns * (size + gap)
        sheet[top : top + size, left : left + size] = patch
    return sheet


def perplexity(counts: Sequence[int]) -> float:
    """exp of the entropy of the codes' shares."""
    share = np.asarray(counts, float)
    share = share[share > 0] / max(share.sum(), 1)
    return float(np.exp(-(share * np.log(share)).sum()))
