"""Patches of codes as an image (sheet) and as an HTML page."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageDraw, ImageFont

from vq.io.pages.charts import sorted_bars
from vq.io.pages.page import Card, Page, picture, row
from vq.io.pictures import grid

Pixels = npt.NDArray[np.uint8]

LABEL, HEADING, BETWEEN = 112, 26, 24  # pixels: left of a row of patches, above the rows, between the two halves
LEAST = 40  # smallest size of a patch on the sheet in pixels; smaller patches are enlarged
BARS = 4096  # no chart with more bars: it would dominate the size of the page


@dataclasses.dataclass
class Shown:
    """The content of sheet and page."""

    counts: npt.NDArray[np.int64]  # of all codes
    most: list[int]
    least: list[int]
    patches: dict[int, Pixels]  # code -> (n, h, w, 3)
    about: str  # description of the tokens

    @property
    def total(self) -> int:
        return int(self.counts.sum())

    def words(self, code: int) -> str:
        return f'{int(self.counts[code]):,} tokens, {share(int(self.counts[code]), self.total)}'


def share(count: int, total: int) -> str:
    return f'{100 * count / max(total, 1):.3g} %'


def sheet(shown: Shown, columns: int) -> torch.Tensor:
    """(3, H, W) uint8: one row of patches per code, the most used codes on the left, the least used on the right."""
    halves = [('used most', shown.most), ('used least', shown.least)]
    height, width = next(iter(shown.patches.values())).shape[1:3]
    scale = max(1, -(-LEAST // min(height, width)))
    strip = grid(torch.zeros(columns, 3, height * scale, width * scale, dtype=torch.uint8), columns).shape
    row_height, half = max(strip[1], 30), LABEL + strip[2]
    rows = max(len(codes) for _, codes in halves)
    canvas = Image.new('RGB', (2 * half + BETWEEN, HEADING + rows * row_height), 'white')
    draw, large, small = ImageDraw.Draw(canvas), ImageFont.load_default(14), ImageFont.load_default(11)
    for side, (title, codes) in enumerate(halves):
        left = side * (half + BETWEEN)
        draw.text((left + 4, 5), title, fill='black', font=large)
        for index, code in enumerate(codes):
            top = HEADING + index * row_height
            count = int(shown.counts[code])
            middle = top + row_height // 2
            draw.text((left + 4, middle - 14), f'code {code}', fill='black', font=small)
            draw.text((left + 4, middle), f'{count:,}   {share(count, shown.total)}', fill=(90, 90, 90), font=small)
            found = torch.from_numpy(shown.patches[code]).permute(0, 3, 1, 2)
            large_patches = found.repeat_interleave(scale, 2).repeat_interleave(scale, 3)
            canvas.paste(Image.fromarray(grid(large_patches, columns).permute(1, 2, 0).numpy()), (left + LABEL, top))
    return torch.from_numpy(np.array(canvas)).permute(2, 0, 1)


def page(shown: Shown, title: str, lead: str) -> Page:
    counts, total = shown.counts, shown.total
    used = int((counts > 0).sum())
    shares = counts[counts > 0] / max(total, 1)
    perplexity = math.exp(-float((shares * np.log(shares)).sum()))
    found = Page(title, lead)
    found.cards(
        [
            Card('codes', f'{len(counts):,}'),
            Card('used', f'{100 * used / len(counts):.1f}', '%', f'{used:,} codes; {len(counts) - used:,} never'),
            Card('perplexity', f'{perplexity:.1f}', '', 'number of equally used codes with the same entropy'),
            Card('tokens', f'{total:,}', '', shown.about),
        ]
    )
    shown_share = share(int(counts[shown.most].sum()), total)
    lines = f'The {len(shown.most)} codes with the most tokens; together {shown_share} of all tokens.'
    found.section('most', 'Used most', lines, [_figures(shown, shown.most)])
    if shown.least:
        lines = f'The {len(shown.least)} codes with the fewest tokens, without unused codes.'
        found.section('least', 'Used least', lines, [_figures(shown, shown.least)])
    if len(counts) <= BARS:
        bars = sorted_bars('Tokens of each code', counts.tolist(), 'codes, by use', 'tokens')
        found.section('usage', 'All codes', 'How often each code is used, from the highest to the lowest.', [row([bars])])
    return found


def _figures(shown: Shown, codes: Sequence[int]) -> str:
    parts, columns = [], min(8, max(len(found) for found in shown.patches.values()))
    for code in codes:
        patches = torch.from_numpy(shown.patches[code]).permute(0, 3, 1, 2)
        pixels = grid(patches, columns, gap=1).permute(1, 2, 0).contiguous().numpy()
        words = f'{len(patches)} patches of code {code}'
        parts.append(f'<figure><figcaption>code {code}: {shown.words(code)}</figcaption>{picture(pixels, words)}</figure>')
    return f'<div class="sheets">{"".join(parts)}</div>'
