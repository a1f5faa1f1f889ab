"""The tab of runs: a list, and of one run its curves, figures and pictures. Reads small files only; works without torch."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from vq.core.environment import dry_run
from vq.core.reading import open_regular, parse_json
from vq.io.pages.charts import Series, line_chart
from vq.io.pages.page import row, table
from vq.io.pages.scales import show
from vq.io.run_folder import LOG
from vq.io.run_list import RunSummary, list_runs, summary
from vq.report.facts import Origin
from vq.report.training import charts_of, figure, number
from vq.web.places import place_of

TAIL = 1 << 24  # bytes at the end of a journal that are read
POINTS = 200  # of a curve, at most
CHARTS = 12
PICTURES = 24
NO_FIGURES = ('step', 'kind', 'samples', 'seconds', 'skipped', 'epoch')


def listed(root: Path) -> list[dict[str, Any]]:
    """A row for each run, the last changed first."""
    return [_row(run) for run in sorted(list_runs(root, dry_run()), key=lambda run: -run.changed)]


def _row(run: RunSummary) -> dict[str, Any]:
    shown = run.shown
    told = {name: getattr(run, name) for name in ('name', 'kind', 'state', 'step', 'iters', 'checkpoints', 'size', 'changed')}
    best = None if shown is None else {'name': shown[0], 'value': show(shown[1].value), 'step': shown[1].step}
    return {**told, 'config': run.config, 'best': best}


def detail(name: Any, root: Path) -> dict[str, Any]:
    folder = place_of(name, root)
    found, lines = summary(folder, root), thinned(lines_of(folder / LOG))
    evaluations = [line for line in lines if line['kind'] == 'eval']
    curves = [*charts_of(Origin(found.name, lines, (), '', ())), *of_evaluations(evaluations)][:CHARTS]
    return {
        **_row(found),
        'figures': [[key, figure(value)] for key, value in figures_of(evaluations[-1]).items()] if evaluations else [],
        'at': evaluations[-1]['step'] if evaluations else None,
        'best_of': table([''], ['best', 'at step'], [[key, show(one.value), str(one.step)] for key, one in found.best.items()])
        if found.best
        else '',
        'curves': row(curves) if curves else '',
        'pictures': [*pictures_of(folder)],
    }


def lines_of(file: Path) -> list[dict[str, Any]]:
    """The sound lines of a journal; of a long one, those at its end."""
    try:
        with open_regular(file) as stream:
            size = os.fstat(stream.fileno()).st_size
            stream.seek(max(0, size - TAIL))
            text = stream.read()
    except OSError:
        return []
    found = []
    for line in text.split(b'\n')[size > TAIL :]:
        try:
            record = parse_json(line)
        except ValueError:
            continue
        if isinstance(record, dict) and type(record.get('step')) is int and isinstance(record.get('kind'), str):
            found.append(record)
    return found


def thinned(lines: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """At most about ``POINTS`` lines of each kind, evenly spaced, the last one among them."""
    kinds: dict[str, list[dict[str, Any]]] = {}
    for line in lines:
        kinds.setdefault(line['kind'], []).append(line)
    return [
        line
        for own in kinds.values()
        for place, line in enumerate(reversed(own))
        if place % max(1, -(-len(own) // POINTS)) == 0
    ][::-1]


def figures_of(line: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: value
        for key, value in line.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and key not in NO_FIGURES
    }


def of_evaluations(lines: list[dict[str, Any]]) -> list[str]:
    """A chart of each figure that was measured more than once."""
    charts = []
    for key in dict.fromkeys(key for line in lines for key in figures_of(line)):
        have = [line for line in lines if key in line]
        if len(have) > 1:
            series = Series(key, [line['step'] for line in have], [number(line[key]) for line in have])
            charts.append(line_chart(f'{key}, held out', [series], 'step'))
    return charts


def pictures_of(folder: Path) -> list[dict[str, str]]:
    """Pictures of the training, the newest first, and those of ``vq sample``."""
    found = []
    for place in (folder.with_name(f'{folder.name}_sample'), folder / 'pictures'):
        if place.is_dir():
            files = [file for file in place.iterdir() if file.suffix == '.png' and file.is_file()]
            found += [(place, file) for file in sorted(files, key=lambda file: -file.stat().st_mtime)]
    return [
        {'file': f'pictures/{file.name}' if place.name == 'pictures' else file.name, 'title': _title(place, file)}
        for place, file in found[:PICTURES]
    ]


def _title(place: Path, file: Path) -> str:
    return f'vq sample: {file.name}' if place.name != 'pictures' else file.stem.replace('_', ' ')
