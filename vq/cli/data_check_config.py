"""``vq data check CONFIG``: the datasets of a config, each image read once, and the time that an epoch takes to load."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from vq.cli import data_report, data_source
from vq.cli.data_stats import line
from vq.cli.next_steps import say_next
from vq.core import environment
from vq.core.errors import UserError

if TYPE_CHECKING:
    from vq.assembly.data import Split
    from vq.data.survey.of_dataset import DatasetSurvey
    from vq.data.survey.pace import Pace

CELL = 96  # pixels of an image of the sheet


def run(options: argparse.Namespace) -> int:
    from vq.assembly import logs
    from vq.assembly.data import open_splits, validation_transform
    from vq.data.survey.of_dataset import survey_datasets
    from vq.data.survey.stats import Look
    from vq.report.of_images import write_page
    from vq.runners.progress import ProgressBar

    if options.seconds < 0:
        raise UserError(f'--seconds is {options.seconds:g}', 'It is a time, or 0 to leave the measurement out.')
    logs.start()
    config = data_source.compose_source(options)
    splits = open_splits(config, options.split)
    _, transform = validation_transform(config)
    looks = {name: Look(split.dataset, transform, own=not split.training) for name, split in splits.items()}
    workers = environment.usable_cores() if options.workers is None else options.workers
    with contextlib.ExitStack() as stack:

        def progress(name: str, count: int) -> Callable[[int], object]:
            return stack.enter_context(ProgressBar(f'reading {name}', count, 'images')).advance

        found = survey_datasets(looks, workers, progress)
    paces = measured(splits, options.seconds, workers) if options.seconds else {}
    folder = data_source.work_folder(options.work_dir, found.name)
    rows = sheet_rows(found, splits)
    sheet = data_report.write_sheet(rows, CELL, folder / 'sheet.png')
    remarks = data_report.remarks(found)
    show(found, paces, remarks)
    facts = {**found.plain(), 'epochs': {name: pace._asdict() | {'seconds': pace.epoch} for name, pace in paces.items()}}
    write_page(folder / 'report.html', found.name, facts, remarks, sheet)
    print(f'sample sheet: {folder / "sheet.png"}')
    print(f'page: {folder / "report.html"}')
    data_report.write_json(options.json, facts)
    say_next(f'vq data show {data_source.again(options)}')
    return 0


def measured(splits: Mapping[str, Split], seconds: float, workers: int) -> dict[str, Pace]:
    """The pace of each split, with the data loader of the config; without one, batches of 32 images."""
    from vq.data.loading import LoaderSettings
    from vq.data.survey.pace import measure

    default = LoaderSettings(batch_size=32, num_workers=workers if workers > 1 else 0)
    return {name: measure(split.dataset, split.loading or default, 0, seconds) for name, split in splits.items()}


def sheet_rows(found: DatasetSurvey, splits: Mapping[str, Split]) -> list[tuple[str, list[Any]]]:
    """Samples of each class or split, as they are stored, with boxes and masks."""
    from vq.data.decode import BadImage
    from vq.data.survey.drawing import pictures

    starts, start = {}, 0
    for name, split in splits.items():
        starts[name] = start
        start += len(split.dataset)
    rows = []
    for words, members in data_report.samples(found):
        drawn = []
        for index in members:
            split = splits[found.splits[index]]
            with contextlib.suppress(BadImage):  # changed since it was read
                sample = split.dataset.original(index - starts[split.name])
                drawn += pictures(sample, CELL, split.dataset.label_names or split.dataset.categories)
        if drawn:
            rows.append((words, drawn))
    return rows


def show(found: DatasetSurvey, paces: Mapping[str, Pace], remarks: list[str]) -> None:
    head = f'{found.name}: {data_report.number(int(found.good.sum()), "image")}'
    if found.labels is not None:
        head += f' in {data_report.number(len(found.categories), "class", "classes")}'
    data_report.paragraph(f'{head}, {len(found.bad)} bad')
    data_report.classes(found)
    data_report.sizes(found)
    data_report.kinds(found)
    data_report.files('cannot be read', found.bad)
    data_report.duplicates(found)
    print()
    for name, stats in found.stats.items():
        if stats.images:
            data_report.paragraph(line(name, stats))
    for name, pace in paces.items():
        data_report.paragraph(f'{name}: {paced(pace)}')
    for text in remarks:
        data_report.paragraph(f'warning: {text}')
    print()


def paced(pace: Pace) -> str:
    from vq.runners.progress import clock

    with_workers = data_report.number(pace.workers, 'worker') if pace.workers else 'no workers'
    return (
        f'an epoch of {data_report.number(pace.images, "image")} takes {clock(pace.epoch)} (h:mm:ss) to load, '
        f'{pace.rate:,.0f} images/s: one process with {with_workers}, measured over '
        f'{pace.batches} batches of {pace.batch_size}, no model'
    )
