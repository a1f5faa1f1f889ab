"""Charts of a journal: losses, evaluations, learning rates, codes in use."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from vq.io.pages.charts import Series, line_chart
from vq.io.pages.page import Page, row
from vq.io.pages.scales import show
from vq.report.facts import Origin

NO_LOSSES = ('epoch', 'samples', 'total', 'step')
MOST = 5  # lines in a chart: there are as many colours
MOST_CHARTS = 8


def add_section(origin: Origin, page: Page, more: Sequence[str]) -> None:
    """``more``: charts that stand after that of the losses."""
    charts = charts_of(origin)
    if charts or more:
        page.section('training', 'Training', '', [row([*charts[:1], *more, *charts[1:]])])


def charts_of(origin: Origin) -> list[str]:
    train = origin.training
    if not train:
        return []
    steps = [line['step'] for line in train]
    losses = [Series(name, steps, [number(line.get(name)) for line in train]) for name in names_of_losses(train)]
    log = all(value > 0 for line in losses for value in line.y if math.isfinite(value))
    note = 'Means between two log lines, without loss weights.'
    charts = [
        line_chart(
            'Training losses' if start == 0 else 'Further losses', losses[start : start + MOST], 'step', log=log, note=note
        )
        for start in range(0, len(losses), MOST)
    ][:MOST_CHARTS]
    rates = [line['lr'] if isinstance(line.get('lr'), dict) else {} for line in train]
    names = dict.fromkeys(name for found in rates for name in found)
    lines = [Series(name, steps, [number(found.get(name)) for found in rates]) for name in names]
    return [*charts, *([line_chart('Learning rate', lines, 'step', zero=True)] if lines else [])]


def names_of_losses(train: Sequence[Mapping[str, Any]]) -> list[str]:
    """The losses in lines of a journal; the total only if there is no other."""
    found = dict.fromkeys(
        name
        for line in train
        for name, value in line.items()
        if isinstance(value, float) and name.rpartition('/')[2] not in NO_LOSSES
    )
    return list(found) or [name for name in ('total',) if any(name in line for line in train)]


def curve(name: str, found: Sequence[tuple[int, Mapping[str, Any]]], key: str) -> Series | None:
    """A figure of evaluations over steps; None if none has it."""
    points = [(step, number(results[key])) for step, results in found if key in results]
    return Series(name, [step for step, _ in points], [value for _, value in points]) if points else None


def codes_in_use(origin: Origin, codes: int) -> list[str]:
    """A chart of the alarm's lines, if there are any."""
    lines = [line for line in origin.journal if line['kind'] == 'codebook' and {'usage', 'perplexity'} <= line.keys()]
    if not lines:
        return []
    windows = [line['step'] for line in lines]
    return [
        line_chart(
            'Codes in use during training',
            [
                Series('used at all', windows, [number(line['usage']) * codes for line in lines]),
                Series('perplexity', windows, [number(line['perplexity']) for line in lines]),
            ],
            'step',
            zero=True,
            note=f'In windows of {windows[0]} steps.',
        )
    ]


def number(value: Any) -> float:
    """A figure of a journal or results file; NaN for anything else, such as a damaged value."""
    if isinstance(value, str):  # 'inf' and 'nan', which JSON does not have
        try:
            return float(value)
        except ValueError:
            return math.nan
    return float(value) if isinstance(value, int | float) else math.nan


def figure(value: Any) -> str:
    """A figure as text; '' if it is missing."""
    if value is None:
        return ''
    return show(value) if isinstance(value, int | float) and not isinstance(value, bool) else str(value)
