"""``vq.sample --sweep``: sample a generator with several settings and measure each; a table, a page, a JSON file."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vq.core.errors import UserError, listing

SETTINGS = ('guidance', 'temperature', 'top_k', 'top_p', 'min_p', 'steps', 'num_iter')
COUNTS = ('top_k', 'steps', 'num_iter')


def sweep(argv: Sequence[str] | None, options: argparse.Namespace) -> int:
    """Sample and measure every combination of the values, over the first ``--num-samples`` of the validation split."""
    from vq.assembly import building
    from vq.assembly.compose import compose, config_of, own_weights
    from vq.assembly.frozen_weights import take_tokenizer
    from vq.cli import results
    from vq.cli.sample import describe, set_drawing
    from vq.core import collectives
    from vq.io import atomic
    from vq.metrics.features.metric import FeatureMetric
    from vq.runners.validator import Validator

    grid = parse(options.sweep)
    if options.classes is not None or options.text is not None or options.layout is not None:
        raise UserError(
            'a sweep draws what the validation split shows, to compare with its images',
            'Leave --classes, --text and --layout out.',
        )
    options.load_model_from = own_weights(options)
    options.config = config_of(options)
    config = compose(options.config, options.config_options, options.override, options.autocast, trusted=options.trust)
    options.load_model_from = take_tokenizer(config, options.load_model_from, required=True)
    how = set_drawing(config, options)
    folder = building.runs_folder(options.work_dir) / f'{options.name}_sample'
    validator, context = building.open_runner('vq.sample', argv, options, config, folder, 'validator', Validator, 'Validator')
    building.load_weights(validator.model, options.load_model_from, options.weights, context)
    validator.metrics = {
        name: metric
        for name, metric in validator.metrics.items()
        if isinstance(metric, FeatureMetric) and metric.images == 'generated'
    }
    if not validator.metrics:
        raise UserError(
            'a sweep has nothing to measure: no metric of the validator is of generated images',
            "Give the validator a FeatureMetric with images='generated'.",
        )
    validator.callbacks, validator.limit, validator.spaced = {}, options.num_samples, True
    model: Any = validator.model
    found: list[dict[str, Any]] = []
    validator.setup()
    try:
        for point in points(grid):
            validator.model = model.drawing(settings_of(point), how)
            validator.model.draws = ('generated',)
            measured = validator.evaluate()
            figures = {
                figure: measured[figure]
                for metric in validator.metrics.values()
                if isinstance(metric, FeatureMetric)
                for figure in metric.about['figures']
            }
            found.append({**point, **figures})
        if collectives.is_main():
            record = {
                'drawn': how,
                'swept': {name: list(values) for name, values in grid.items()},
                'points': [{name: results.encode(value) for name, value in row.items()} for row in found],
                'samples': validator.total,
                'metrics': {name: metric.describe() for name, metric in validator.metrics.items()},
                'random_weights': context.random_weights,
                'command': context.command,
                **describe(validator.model),
            }
            atomic.write_json(folder / 'sweep.json', record)
            write_page(folder / 'sweep.html', grid, found, validator.total, context.command)
            show(grid, found)
            print(f'{folder / "sweep.html"}', flush=True)
    finally:
        validator.close()
    return 0


def parse(words: Sequence[str]) -> dict[str, tuple[float, ...]]:
    """``guidance=1:4:0.25`` and ``temperature=0.9,1`` -> values by setting."""
    found: dict[str, tuple[float, ...]] = {}
    for word in words:
        name, equals, text = word.partition('=')
        name = name.replace('-', '_')
        if name not in SETTINGS or not equals:
            raise UserError(f"--sweep: '{word}' is not SETTING=VALUES", f'Settings are {listing(SETTINGS)}.')
        try:
            found[name] = values_of(text)
        except ValueError as error:
            raise UserError(
                f"--sweep: '{text}' gives no values for {name}", f'Write {name}=1:4:0.25 (both ends count) or {name}=1,2,3.'
            ) from error
    return found


def values_of(text: str) -> tuple[float, ...]:
    if ':' not in text:
        return tuple(float(part) for part in text.split(','))
    start, stop, step = map(float, text.split(':'))
    if not step > 0 or stop < start:
        raise ValueError(text)
    count = int((stop - start) / step + 1e-9) + 1
    return tuple(round(start + step * place, 10) for place in range(count))


def points(grid: Mapping[str, Sequence[float]]) -> list[dict[str, float]]:
    return [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]


def settings_of(point: Mapping[str, float]) -> dict[str, float]:
    """The swept settings; counts are whole numbers."""
    return {name: int(value) if name in COUNTS else value for name, value in point.items()}


def show(grid: Mapping[str, Sequence[float]], found: Sequence[Mapping[str, float]]) -> None:
    """Print one row per point, with the best value of each figure in bold."""
    from rich.console import Console
    from rich.table import Table

    from vq.cli.results import show as text_of

    figures = [name for name in found[0] if name not in grid]
    table = Table(show_edge=False)
    for name in (*grid, *figures):
        table.add_column(name, justify='right')
    best = {name: best_of(name, [row[name] for row in found]) for name in figures}
    for row in found:
        cells = [f'{row[name]:g}' for name in grid]
        cells += [f'[bold]{text_of(row[name])}[/bold]' if row[name] == best[name] else text_of(row[name]) for name in figures]
        table.add_row(*cells)
    Console(width=max(80, 14 * (len(grid) + len(figures)))).print(table)


def best_of(figure: str, values: Sequence[float]) -> float:
    """The lowest value of a distance, the highest of a score or share."""
    is_distance = any(word in figure for word in ('fid', 'kid', 'cmmd', '_std'))
    return min(values) if is_distance else max(values)


def write_page(
    path: Path, grid: Mapping[str, Sequence[float]], found: Sequence[Mapping[str, float]], samples: int, command: str
) -> None:
    """Write a page with a chart per figure over the first setting, and a line per combination of the other settings."""
    from vq.io.pages.charts import Series, line_chart
    from vq.io.pages.page import Page, shell

    across, *others = grid
    page = Page('Sweep', f'{len(found)} settings, {samples} images each, of the classes of the validation split.')
    charts = []
    for figure in (name for name in found[0] if name not in grid):
        series = []
        for values in itertools.product(*(grid[name] for name in others)):
            rows = [row for row in found if all(row[name] == value for name, value in zip(others, values, strict=True))]
            label = ', '.join(f'{name} {value:g}' for name, value in zip(others, values, strict=True)) or figure
            series.append(Series(label, [row[across] for row in rows], [row[figure] for row in rows]))
        charts.append(line_chart(figure, series, across))
    page.section('figures', f'Over {across}', 'One point per value; nothing is averaged over seeds.', charts)
    page.section('command', 'Command', 'The command line.', [shell([(command, '')])])
    page.save(path)
