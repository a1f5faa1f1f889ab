"""One page of several runs: what differs in their configs, their curves in one chart, figures, pictures side by side."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from vq.io.comparable import best, compare
from vq.io.pages.charts import Series, line_chart
from vq.io.pages.page import Page, picture, row, shell, stacks, table
from vq.report.of_runs import Compared
from vq.report.training import figure, number

MOST = 16  # charts
NO_CURVES = ('step', 'epoch', 'samples', 'seconds', 'skipped')


def build_page(found: Compared) -> Page:
    names = list(found.runs)
    lead = '; '.join(f'{name}: {side.run.spec.kind}, {side.run.spec}' for name, side in found.runs.items())
    page = Page(' and '.join(names) if len(names) == 2 else f'{len(names)} runs', f'{lead}.')
    if found.left_out:
        lines = ''.join(f'<li>{escape(reason)}</li>' for reason in found.left_out)
        page.section('left_out', 'Left out', '', [f'<ul>{lines}</ul>'])
    configs(found, page)
    measured(found, page)
    reconstructions(found, page)
    samples(found, page)
    charts = curves(found)
    if charts:
        page.section('curves', 'Curves', 'Figures that at least two of the runs have.', [row(charts)])
    cost(found, page)
    commands = [(line, name) for name, side in found.runs.items() for line, _ in side.origin.commands]
    if commands:
        page.section('commands', 'Reproduce them', '', [shell(commands)])
    return page


def configs(found: Compared, page: Page) -> None:
    rows = differences({name: side.run.config for name, side in found.runs.items()})
    words = 'Values of the composed configs, by path.' if rows else 'The composed configs are equal.'
    html = [table([''], list(found.runs), [[path, *values] for path, values in rows])] if rows else []
    page.section('configs', 'Configs', words, html)


def differences(configs: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, list[str]]]:
    """(path, value of each config as text) of every value that differs; '' where a config has none."""
    flat = [dict(values(config)) for config in configs.values()]
    paths = dict.fromkeys(path for found in flat for path in found)
    missing = object()
    rows = []
    for path in paths:
        own = [found.get(path, missing) for found in flat]
        if any(repr(value) != repr(own[0]) for value in own[1:]):
            rows.append((path, ['' if value is missing else repr(value) for value in own]))
    return sorted(rows)


def values(config: Any, path: str = '') -> Iterator[tuple[str, Any]]:
    """The leaves of a config by path, as ``--override`` writes them. Short lists of plain values are leaves."""
    if isinstance(config, Mapping) and config:
        for key, value in config.items():
            if path or key != 'tiny':
                yield from values(value, f'{path}.{key}')
    elif isinstance(config, list | tuple) and any(isinstance(value, Mapping | list | tuple) for value in config):
        for index, value in enumerate(config):
            yield from values(value, f'{path}[{index}]')
    else:
        yield path, config


def measured(found: Compared, page: Page) -> None:
    parts = []
    for title, tables, reasons in compare(found.records):
        for group in tables:
            rows = []
            for name in dict.fromkeys(name for results in group.values() for name in results):
                own = {label: results.get(name) for label, results in group.items()}
                marked = best(name, own)
                rows.append([name, *(f'{figure(value)}{" *" if label in marked else ""}' for label, value in own.items())])
            parts.append(f'<figure><figcaption>{escape(title)}</figcaption>{table([""], list(group), rows)}</figure>')
        parts += [f'<p>{escape(title)}: {escape(reason)}</p>' for reason in reasons]
    if parts:
        words = 'At the last checkpoints. * marks the best of figures that compare; others stand in tables of their own.'
        page.section('figures', 'Figures', words, parts)


def reconstructions(found: Compared, page: Page) -> None:
    inputs = found.inputs
    shown = {name: side.reconstructions for name, side in found.runs.items() if side.reconstructions is not None}
    if inputs is None or not shown:
        return
    columns = []
    for index, sample in enumerate(inputs.ids):
        category = inputs.name_of(index)
        pictures = [picture(inputs.pixels[index], f'{sample}: input')]
        for name, made in shown.items():
            pictures.append(picture(made[index], f'{sample}: {name}{_psnr(inputs.pixels[index], made[index])}'))
        columns.append((category, pictures))
    page.section(
        'reconstructions',
        'The same images through each tokenizer',
        f'Images of {inputs.split}, chosen without looking at the results.',
        [stacks(['input', *shown], columns)],
    )


def _psnr(image: np.ndarray, made: np.ndarray) -> str:
    if image.shape != made.shape:
        return ''
    error = float(((image.astype(float) - made) ** 2).mean()) / 255**2
    return f', {-10 * np.log10(max(error, 1e-10)):.1f} dB'


def samples(found: Compared, page: Page) -> None:
    shown = {name: side.drawn for name, side in found.runs.items() if side.drawn is not None}
    if not shown:
        return
    columns = [
        (category, [picture(drawn[index], f'{category}: {name}') for name, drawn in shown.items()])
        for index, category in enumerate(found.classes)
    ]
    words = f'The same class and the seed {found.seed} in each column, with the settings of each config.'
    page.section('samples', 'New images', words, [stacks(list(shown), columns)])


def curves(found: Compared) -> list[str]:
    """A chart for each figure that several journals have: evaluations first, then losses in training."""
    charts = []
    for kind, words in (('eval', 'held out'), ('train', 'training')):
        lines = {name: [line for line in side.origin.journal if line['kind'] == kind] for name, side in found.runs.items()}
        keys = dict.fromkeys(
            key
            for journal in lines.values()
            for line in journal
            for key, value in line.items()
            if isinstance(value, int | float) and not isinstance(value, bool) and key not in NO_CURVES
        )
        for key in keys:
            series = [
                Series(name, [line['step'] for line in have], [number(line[key]) for line in have])
                for name, journal in lines.items()
                if (have := [line for line in journal if key in line])
            ]
            if len(series) > 1:
                charts.append(line_chart(f'{key}, {words}', series, 'step'))
    return charts[:MOST]


def cost(found: Compared, page: Page) -> None:
    own = {name: {'parameters': f'{side.parameters:,}', **dict(side.origin.cost)} for name, side in found.runs.items()}
    rows: list[Sequence[str]] = [
        [key, *(told.get(key, '') for told in own.values())]
        for key in dict.fromkeys(key for told in own.values() for key in told)
    ]
    page.section('cost', 'Cost', '', [table([''], list(own), rows)])
