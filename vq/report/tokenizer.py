"""The sections of a report on a tokenizer: reconstructions, figures beside k-means, tokens, the codebook."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np
import torch
from numpy.typing import NDArray

from vq.io.pages.charts import Series, level_bars, line_chart, sorted_bars
from vq.io.pages.page import Card, Page, picture, row, stacks, table
from vq.io.pages.scales import show
from vq.io.pictures import token_map
from vq.report import training
from vq.report.facts import Origin, Pixels, TokenizerFacts

NUMBERED = 64  # cells of the largest token map that shows numbers
MAP = 128  # pixels of a larger map, at least
BARS = 4096  # codes of the largest chart with a bar for each
MAPS = 10  # token maps to show

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


def headline(facts: TokenizerFacts, origin: Origin) -> list[Card]:
    cards = []
    if facts.held_out:
        split, (ours, baseline) = next(iter(facts.held_out.items()))
        cards += _quality(facts, split)
        if facts.codes and 'codebook_usage' in ours:
            used = facts.codes - int(ours['dead_codes'])
            note = f'{used} of {facts.codes} codes, on {split}'
            cards.append(Card('codebook usage', f'{100 * ours["codebook_usage"]:.1f}', '%', note))
        if facts.classifier is not None and 'fd' in ours:
            known = f'features of a classifier with {facts.classifier["top1"]:.1%} accuracy on real {facts.noun}'
            beside = '' if baseline is None else f'k-means: {baseline["fd"]:.2f}; '
            cards.append(Card('FD of reconstructions', f'{ours["fd"]:.2f}', '', beside + known))
            beside = '' if baseline is None else f'; k-means: {baseline["recognised"]:.1%}'
            note = f"the classifier's accuracy on reconstructions{beside}"
            cards.append(Card('still recognised', f'{100 * ours["recognised"]:.1f}', '%', note))
    if facts.codes:
        raw = facts.image_size**2 * 24
        note = f'{facts.tokens} tokens of {facts.bits:.4g} bits; raw pixels: {show(raw)}'
        cards.append(Card('an image is', f'{facts.tokens * facts.bits:.0f}', 'bits', note))
    steps = f'{origin.training[-1]["step"]} steps, ' if origin.training else ''
    note = f'{steps}{facts.parameters / 1000:.0f} k parameters{facts.where}'
    if facts.seconds is not None:
        cards.append(Card('tokenizer trained in', f'{facts.seconds:.0f}', 's', note))
    return cards


def _quality(facts: TokenizerFacts, split: str) -> list[Card]:
    ours, baseline = facts.held_out[split]
    if 'psnr' not in ours:
        return []
    trained = 'never trained on' if split != 'train' else 'which it was trained on'
    cards = [Card('PSNR, held out', f'{ours["psnr"]:.1f}', 'dB', f'{ours["samples"]} images of {split}, {trained}')]
    if baseline is not None:
        gain = f'{ours["psnr"] - baseline["psnr"]:+.1f}'
        cards.append(Card('against k-means', gain, 'dB', f'k-means on raw patches: {baseline["psnr"]:.1f} dB'))
    return cards


def add_sections(facts: TokenizerFacts, origin: Origin, page: Page) -> None:
    reconstructions(facts, page)
    comparison(facts, page)
    charts = evaluations(facts)
    training.add_section(origin, page, charts + training.codes_in_use(origin, facts.codes))
    maps(facts, page)
    latents(facts, page)
    usage(facts, page)
    codebook(facts, page)


def comparison(facts: TokenizerFacts, page: Page) -> None:
    if not facts.held_out:
        return
    columns = [found for pair in facts.held_out.values() for found in pair if found is not None]
    rows = [
        [name, *(form.format(found[key]) if key in found else '' for found in columns)]
        for key, (name, form) in METRICS.items()
        if any(key in found for found in columns)
    ]
    split, (ours, baseline) = next(iter(facts.held_out.items()))
    head = ['tokenizer', 'k-means'] if baseline is not None else ['tokenizer']
    parts = [table(list(facts.held_out), head, rows)]
    if baseline is not None:
        levels = [('tokenizer', ours['psnr'], 's0'), ('k-means on raw patches', baseline['psnr'], 's1')]
        parts.append(level_bars('PSNR, held out', levels, 'dB'))
    words = 'PSNR is the mean over images of the PSNR on 8-bit pixels. '
    if facts.codes:
        words += 'A code counts as used if any image of the split has it. '
    if baseline is not None:
        rate = 'the same number of codes, the same number of tokens per image'
        if facts.codebooks > 1:
            rate = f'the same cells, as many codes as the {facts.codebooks} codebooks of a cell have combinations'
        words = (
            f'k-means on raw pixel patches has {rate} and the same training images. It is computed for this report and '
            f'measured by the same code. {words}'
        )
    if facts.classifier is not None:
        words += (
            'FD is the Frechet distance between reconstructions and their originals in the features of a small classifier, so '
            'it cannot be compared with figures of other classifiers. Accuracy of this classifier on real '
            f'{facts.noun} of {split}: {facts.classifier["top1"]:.1%}.'
        )
    title = 'Measured' if baseline is None else 'Measured against k-means'
    page.section('metrics', title, words.strip(), [f'<div class="beside">{"".join(parts)}</div>'])


def evaluations(facts: TokenizerFacts) -> list[str]:
    """PSNR over steps, with that of the baseline."""
    found = training.curve('tokenizer', facts.validations, 'psnr')
    if found is None:
        return []
    baseline = next((pair[1] for pair in facts.held_out.values()), None)
    return [
        line_chart(
            'PSNR on held-out images, dB',
            [found],
            'step',
            references=[] if baseline is None else [('k-means', baseline['psnr'])],
            note='The report uses the last checkpoint, not the best.',
        )
    ]


def reconstructions(facts: TokenizerFacts, page: Page) -> None:
    found = facts.samples
    if found is None:
        return
    columns, made, coarse = [], found.reconstructions, found.baseline
    for index, category in enumerate(found.categories):
        name = f'{category}, {found.ids[index]}'.removeprefix(', ')
        pictures = [picture(found.images[index], f'{name}: input')]
        if made is not None:
            error = np.abs(found.images[index].astype(int) - made[index])
            psnr = -10 * np.log10(max(float((error**2).mean()) / 255**2, 1e-10))
            pictures.append(picture(made[index], f'{name}: reconstruction, {psnr:.1f} dB'))
            pictures.append(picture(np.minimum(4 * error, 255).astype(np.uint8), f'{name}: error times 4'))
        if coarse is not None:
            pictures.append(picture(coarse[index], f'{name}: k-means on raw patches'))
        columns.append((category, pictures))
    rows = ['input']
    rows += [] if made is None else ['reconstruction', 'error, 4 fold']
    rows += [] if coarse is None else ['k-means']
    last = 'The last row shows k-means on raw patches, with the same number of bits.' if coarse is not None else ''
    page.section(
        'reconstructions',
        f'Reconstructions of held-out {facts.noun}' if made is not None else f'Held-out {facts.noun}',
        f'{facts.chosen} {last}'.strip(),
        [stacks(rows, columns)],
    )


def maps(facts: TokenizerFacts, page: Page) -> None:
    found = facts.samples
    if found is None or found.tokens is None:
        return
    shown = one_of_each(found.categories)
    several = f', with the maps of {facts.codebooks} codebooks side by side' if facts.codebooks > 1 else ': one code per cell'
    html = ''.join(
        f'<div class="map">{picture(found.images[index], f"{found.categories[index] or found.ids[index]}: input")}'
        f'{token_picture(found.tokens[index], found.categories[index] or found.ids[index])}</div>'
        for index in shown
    )
    page.section(
        'tokens',
        'Token maps',
        f'The output of the tokenizer{several}. A code has the same colour everywhere; similar codes do not have similar '
        'colours.',
        [f'<div class="maps">{html}</div>'],
    )


def one_of_each(categories: Sequence[str]) -> list[int]:
    """The first row of each category; the first rows if there are no categories."""
    if not any(categories):
        return list(range(len(categories)))[:MAPS]
    first: dict[str, int] = {}
    for index, category in enumerate(categories):
        first.setdefault(category, index)
    return list(first.values())[:MAPS]


def latents(facts: TokenizerFacts, page: Page) -> None:
    """The channels of the latent of a continuous tokenizer, as grey pictures on one scale."""
    found = facts.samples
    if found is None or found.latents is None:
        return
    low, high = np.quantile(found.latents, [0.01, 0.99])
    grey = ((found.latents - low) / max(high - low, 1e-12) * 255).clip(0, 255).round().astype(np.uint8)  # (N, C, h, w)
    scale = max(1, -(-48 // grey.shape[-1]))
    columns = []
    for index in one_of_each(found.categories):
        name = found.categories[index] or found.ids[index]
        channels = [np.repeat(enlarge(channel, scale)[..., None], 3, 2) for channel in grey[index][:8]]
        pictures = [picture(channel, f'{name}: channel {number}') for number, channel in enumerate(channels)]
        columns.append((name, [picture(found.images[index], f'{name}: input'), *pictures]))
    flat = found.latents.transpose(1, 0, 2, 3).reshape(found.latents.shape[1], -1)
    rows = [[f'channel {number}', f'{row.mean():.3f}', f'{row.std():.3f}'] for number, row in enumerate(flat[:64])]
    names = ['input', *(f'channel {number}' for number in range(min(8, grey.shape[1])))]
    page.section(
        'latents',
        'Latents',
        f'The mean of the latent, {found.latents.shape[1]} channels in {grey.shape[2]} x {grey.shape[3]} cells, of these '
        f'images. Black is {low:.2f}, white is {high:.2f}.',
        [stacks(names, columns), table([''], ['mean', 'deviation'], rows)],
    )


def usage(facts: TokenizerFacts, page: Page) -> None:
    if facts.counts:
        page.section('usage', 'Codebook usage', '', [row(usage_charts(facts.counts))])


def usage_charts(counted: dict[str, list[int]]) -> list[str]:
    """For each entry the uses of its codes, the highest first; a line in place of bars for large codebooks."""
    charts = []
    for name, counts in counted.items():
        note = f'{np.count_nonzero(counts)} of {len(counts)} codes used; perplexity {perplexity(counts):.0f}.'
        title = f'Tokens of {name}: {show(sum(counts))}'
        if len(counts) <= BARS:
            charts.append(sorted_bars(title, counts, 'codes, most used first', 'uses, log scale', note=note))
            continue
        falling = sorted(counts, reverse=True)
        ranks = np.unique(np.geomspace(1, len(falling), 300).round().astype(int)).tolist()
        line = Series('uses of a code', ranks, [falling[rank - 1] for rank in ranks])
        charts.append(line_chart(title, [line], 'codes, most used first', 'uses, log scale', log=True, note=note))
    return charts


def codebook(facts: TokenizerFacts, page: Page) -> None:
    whole = next(iter(facts.counts.values()), None)
    counts = None if whole is None else [whole[code] for code in facts.shown_codes] if facts.shown_codes else whole
    sheets: list[tuple[str, Pixels]] = []
    words = ''
    if facts.code_pictures is not None:
        sheets.append(('tokenizer', ordered(facts.code_pictures, counts)))
        words += 'Each code of the tokenizer is shown as the mean of its training patches (crossed out if unused). '
    if facts.decoded is not None:
        sheets.append(('tokenizer, a map of one code decoded', ordered(facts.decoded, counts)))
        words += 'A map that has the same code in all cells, decoded, shows what the decoder makes of the code alone. '
    if facts.baseline_pictures is not None:
        sheets.append(('k-means', ordered(facts.baseline_pictures, None)))
        if facts.code_pictures is not None:
            words += (
                'The means are softer than the codes of k-means, which are patches themselves: the decoder computes a patch '
                'from its code and from the codes around it. '
            )
    if not sheets:
        return
    few = f'The {len(facts.shown_codes)} codes used most. ' if facts.shown_codes else ''
    html = [
        f'<figure><figcaption>{escape(title)}</figcaption>{picture(tile(patches), title)}</figure>'
        for title, patches in sheets
    ]
    page.section(
        'codes',
        'The codebook as pictures',
        f'{words}{few}Sorted by brightness.',
        [f'<div class="sheets">{"".join(html)}</div>'],
    )


def enlarge(picture: NDArray[np.uint8], scale: int) -> NDArray[np.uint8]:
    """(h, w) or (h, w, 3), each pixel as a square of ``scale`` pixels."""
    return picture.repeat(scale, 0).repeat(scale, 1)


def token_picture(tokens: NDArray[np.int64], category: str) -> str:
    """Tokens (h, w) as an SVG of coloured cells with their numbers; many cells, or another shape, as a picture without."""
    if tokens.ndim != 2 or tokens.size > NUMBERED:
        side = max(tokens.shape[:2]) if tokens.ndim > 1 else int(np.ceil(np.sqrt(len(tokens))))
        large = token_map(torch.from_numpy(tokens), side * max(1, -(-MAP // side)))
        return picture(large.permute(1, 2, 0).numpy(), f'tokens of {category}')
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
