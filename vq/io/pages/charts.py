"""Charts as SVG text inside an HTML page: lines over steps, and bars of sorted counts.

Colours are classes (``s0``, ``s1``, ...) and CSS variables of the page, so that one drawing serves light and dark. Each
point has its value as a ``<title>``, which browsers show on hover and screen readers read aloud.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from html import escape

from vq.io.pages.scales import Scale, linear_ticks, log_ticks, show, spread

WIDTH, HEIGHT = 440, 260
LEFT, RIGHT, TOP, BOTTOM = 56, 12, 12, 40  # margins for the axes
COLOURS = 5


@dataclasses.dataclass(frozen=True)
class Series:
    """A named line: values over steps. Values that are not finite leave a gap."""

    name: str
    x: Sequence[float]
    y: Sequence[float]

    def __post_init__(self) -> None:
        if len(self.x) != len(self.y):
            raise ValueError(f"'{self.name}' has {len(self.x)} x values and {len(self.y)} y values")


def line_chart(
    title: str,
    series: Sequence[Series],
    x_label: str,
    y_label: str = '',
    *,
    log: bool = False,
    references: Sequence[tuple[str, float]] = (),
    note: str = '',
    zero: bool = False,
) -> str:
    """A ``<figure>`` with one line per series. ``references`` are dashed lines at a value; ``note`` is printed below."""
    marks = [value for _, value in references]
    x_low, x_high = spread((place for line in series for place in line.x), log=False)
    y_low, y_high = spread([*(value for line in series for value in line.y), *marks], log=log, zero=zero)
    across = Scale(x_low, x_high, LEFT, WIDTH - RIGHT)
    up = Scale(y_low, y_high, HEIGHT - BOTTOM, TOP, log)
    parts = [
        _axes(
            across,
            up,
            x_label,
            y_label,
            linear_ticks(x_low, x_high),
            log_ticks(y_low, y_high) if log else linear_ticks(y_low, y_high),
        )
    ]
    for index, (name, value) in enumerate(references):
        parts.append(
            f'<line class="reference s{(len(series) + index) % COLOURS}" x1="{LEFT}" x2="{WIDTH - RIGHT}" '
            f'y1="{up(value):.1f}" y2="{up(value):.1f}"><title>{escape(name)}: {show(value)}</title></line>'
        )
    for index, line in enumerate(series):
        parts.append(_line(line, index % COLOURS, across, up))
    names = [(line.name, f's{index % COLOURS}', 'swatch') for index, line in enumerate(series)]
    names += [
        (f'{name} ({show(value)})', f's{(len(series) + index) % COLOURS}', 'swatch dashed')
        for index, (name, value) in enumerate(references)
    ]
    return _figure(title, parts, names, note)


def sorted_bars(title: str, counts: Sequence[int], x_label: str, y_label: str, *, even: bool = True, note: str = '') -> str:
    """Counts as bars on a log axis, the highest first. Codes with a count of 0 are marked at the foot of the axis."""
    ordered = sorted(counts, reverse=True)
    highest = max([*ordered, 1])
    across, up = Scale(0, len(ordered), LEFT, WIDTH - RIGHT), Scale(0.7, highest * 1.2, HEIGHT - BOTTOM, TOP, log=True)
    bar = (WIDTH - RIGHT - LEFT) / max(len(ordered), 1)
    parts = [_axes(across, up, x_label, y_label, linear_ticks(0, len(ordered)), log_ticks(0.7, highest * 1.2, 6))]
    floor = HEIGHT - BOTTOM
    tops = [up(count) if count else floor for count in ordered]
    outline = ''.join(f'L{across(rank):.2f} {top:.1f}h{bar:.3f}' for rank, top in enumerate(tops))
    parts.append(f'<path class="bar s0" d="M{LEFT} {floor}{outline}V{floor}z"/>')  # one shape: no seams between the bars
    for rank, count in enumerate(ordered):
        top = tops[rank] if count else floor - 4
        parts.append(
            f'<rect class="{"hit" if count else "bar dead"}" x="{across(rank):.2f}" y="{top:.1f}" width="{bar:.3f}" '
            f'height="{floor - top:.1f}"><title>code {rank + 1} of {len(ordered)}: {count}</title></rect>'
        )
    names = [('uses of a code', 's0', 'swatch')]
    total = sum(ordered)
    if even and total:
        mean = total / len(ordered)
        parts.append(
            f'<line class="reference s1" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{up(mean):.1f}" y2="{up(mean):.1f}">'
            f'<title>all codes alike: {show(mean)}</title></line>'
        )
        names.append((f'all alike ({show(mean)})', 's1', 'swatch dashed'))
    if ordered and not ordered[-1]:
        names.append((f'{ordered.count(0)} never used', 'dead', 'swatch'))
    return _figure(title, parts, names, note)


def level_bars(title: str, rows: Sequence[tuple[str, float, str]], unit: str, note: str = '') -> str:
    """A few values as horizontal bars from zero. ``rows``: (name, value, class of its colour)."""
    highest = max(value for _, value, _ in rows)
    height, gap = 34, 14
    parts = []
    for index, (name, value, colour) in enumerate(rows):
        top = 4 + index * (height + gap + 12)
        width = max(2.0, value / highest * (WIDTH - 110))
        parts.append(
            f'<text class="label" x="0" y="{top + 9}">{escape(name)}</text>'
            f'<rect class="bar {colour}" x="0" y="{top + 16}" width="{width:.1f}" height="{height - 8}" rx="3"/>'
            f'<text class="value" x="{width + 8:.1f}" y="{top + 35}">{value:.1f} {escape(unit)}</text>'
        )
    return _figure(title, parts, [], note, height=4 + len(rows) * (height + gap + 12))


def _axes(across: Scale, up: Scale, x_label: str, y_label: str, x_ticks: Sequence[float], y_ticks: Sequence[float]) -> str:
    floor, parts = HEIGHT - BOTTOM, []
    for value in y_ticks:
        y = up(value)
        parts.append(
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text class="tick" x="{LEFT - 7}" y="{y + 4:.1f}" text-anchor="end">{show(value)}</text>'
        )
    for value in x_ticks:
        parts.append(f'<text class="tick" x="{across(value):.1f}" y="{floor + 17}" text-anchor="middle">{show(value)}</text>')
    parts.append(f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{floor}" y2="{floor}"/>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text class="label" x="{middle}" y="{HEIGHT - 5}" text-anchor="middle">{escape(x_label)}</text>')
    if y_label:
        parts.append(
            f'<text class="label" transform="translate(11 {(TOP + floor) / 2}) rotate(-90)" text-anchor="middle">'
            f'{escape(y_label)}</text>'
        )
    return ''.join(parts)


def _line(line: Series, colour: int, across: Scale, up: Scale) -> str:
    points = [
        (across(x), up(y), x, y) if math.isfinite(y) and (y > 0 or not up.log) else None
        for x, y in zip(line.x, line.y, strict=True)
    ]
    path, pen = [], 'M'
    for point in points:
        if point is None:
            pen = 'M'
            continue
        path.append(f'{pen}{point[0]:.1f} {point[1]:.1f}')
        pen = 'L'
    dots = [
        f'<circle class="dot s{colour}" cx="{p[0]:.1f}" cy="{p[1]:.1f}" r="{2.5 if len(points) <= 20 else 1.2}"/>'
        f'<circle class="hit" cx="{p[0]:.1f}" cy="{p[1]:.1f}" r="6"><title>{escape(line.name)}, {show(p[2])}: '
        f'{show(p[3])}</title></circle>'
        for p in points
        if p is not None
    ]
    return f'<path class="line s{colour}" d="{" ".join(path)}"/>' + ''.join(dots)


def _figure(title: str, parts: Sequence[str], names: Sequence[tuple[str, str, str]], note: str, height: int = HEIGHT) -> str:
    legend = ''.join(f'<span><i class="{kind} {colour}"></i>{escape(name)}</span>' for name, colour, kind in names)
    return (
        f'<figure class="chart"><figcaption>{escape(title)}</figcaption><div class="legend">{legend}</div>'
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(title)}">{"".join(parts)}</svg>'
        + (f'<p class="note">{escape(note)}</p>' if note else '')
        + '</figure>'
    )
