"""The shared code of commands that measure existing images."""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vq.cli import arguments

if TYPE_CHECKING:
    from vq.runners.images import ImagesValidator

logger = logging.getLogger('vq')


def add_common(parser: argparse.ArgumentParser, work_dir: str) -> None:
    parser.add_argument('--work-dir', default=None, help=f'folder of the results (default: {work_dir})')
    parser.add_argument('--batch-size', type=int, default=None, help='images per rank and step; does not change the figures')
    parser.add_argument('--config-options', action=arguments.DictAction, help='options of the config, e.g. num_workers:8')
    parser.add_argument(
        '--override', action=arguments.DictAction, help='values of the runner by path, e.g. .metrics.features.splits:1'
    )
    parser.add_argument('--seed', type=int, default=3407)
    arguments.add_trust(parser)
    parser.set_defaults(weights='auto')


@dataclasses.dataclass
class Measured:
    """The results of one pass, with its validator and folder."""

    record: dict[str, Any]
    validator: ImagesValidator
    folder: Path


def measure(
    tool: str, argv: Sequence[str] | None, options: argparse.Namespace, config_file: str, choices: dict[str, Any], folder: Path
) -> Measured:
    """Compose, build, run, and write ``<tool>.json``; every rank gets the record."""
    from vq.assembly import building
    from vq.assembly.compose import compose
    from vq.cli import results
    from vq.core import collectives
    from vq.data.datasets.images import ImagesDataset
    from vq.io import atomic
    from vq.runners.images import ImagesValidator

    if options.batch_size is not None:
        choices['batch_size'] = options.batch_size
    options.config = config_file
    overrides = {f'.validator{path}': value for path, value in options.override.items()}
    config = compose(config_file, {**choices, **options.config_options}, overrides, trusted=options.trust)
    options.name = folder.name
    validator, context = building.open_runner(
        f'vq.tools.{tool}', argv, options, config, folder, 'validator', ImagesValidator, 'ImagesValidator'
    )
    notes = validator.dataset.warnings() if isinstance(validator.dataset, ImagesDataset) else []
    try:
        validator.setup()
        if collectives.is_main():
            for note in notes:
                logger.warning('%s', note)
        measured = validator.evaluate()
        file = folder / f'{tool}.json'
        record = results.write(file, measured, context, config, options, [], validator)
        record |= {'measures': 'images' if tool != 'pairs' else 'pairs', 'seed': options.seed, 'notes': notes}
        record['reference_is_images'] = isinstance(validator.reference, ImagesDataset)
        if collectives.is_main():
            atomic.write_json(file, record)
    finally:
        validator.close()
    return Measured(record, validator, folder)


def append_line(file: Path, record: dict[str, Any]) -> None:
    """Append the date, figures and command of a measurement to a text file."""
    from vq.cli.results import show
    from vq.io import atomic

    now = datetime.datetime.now(datetime.UTC).strftime('%Y-%m-%d %H:%M:%S UTC')
    figures = '  '.join(f'{name} {show(value)}' for name, value in figures_of(record).items())
    before = file.read_bytes() if file.is_file() else b''
    atomic.write_bytes(file, before + f'{now}  {figures}  {record["command"]}\n'.encode())


def figures_of(record: dict[str, Any]) -> dict[str, Any]:
    """The results without run times and counts."""
    return {name: value for name, value in record['results'].items() if name not in ('seconds', 'skipped', 'samples')}
