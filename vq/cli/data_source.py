"""FOLDER or CONFIG of ``vq data``: a folder of images, or any dataset by a config."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vq.cli import arguments, static_options
from vq.core.errors import UserError

if TYPE_CHECKING:
    from vq.core.config import PyConfig

HELD_OUT = 0.1  # of configs/photos


def add_source(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        'config',
        metavar='FOLDER|CONFIG',
        help='a folder of images; or the datasets of a config, of a run folder, or of a name in configs/datasets',
    )
    arguments.add_pairs(parser)
    parser.add_argument('--split', choices=('train', 'validation'), help='of a config: only this split')
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs'), help='below it is written (default: work_dirs)')


def folder_of(options: argparse.Namespace) -> Path | None:
    """The folder of images that is meant; None if a config or a run is."""
    path = Path(options.config)
    is_run = (path / 'checkpoints').is_dir()
    if path.suffix in ('.py', '.json') or is_run or (not path.exists() and dataset_config(options.config)):
        return None
    return path


def dataset_config(word: str) -> str | None:
    """The config of a dataset that is called by its name alone."""
    name = f'datasets/{word}.py'
    return name if len(Path(word).parts) == 1 and (static_options.packaged() / name).is_file() else None


def compose_source(options: argparse.Namespace) -> PyConfig:
    """The config that is meant. A folder is the dataset ``folder``, cropped and split as configs/photos do."""
    from vq.assembly.compose import compose

    folder, choices = folder_of(options), dict(options.config_options)
    file = options.config
    if folder is not None:
        file = 'datasets/folder.py'
        choices = {'held_out': HELD_OUT, **choices, 'data_root': str(folder)}
    elif not Path(file).exists():
        file = dataset_config(file) or file
    alone = Path(file).parts[0] == 'datasets' and not Path(file).exists()  # of ours, without a model: it has no tiny form
    return compose(file, choices, options.override, tiny=False if alone else None, trusted=options.trust)


def refuse_pairs(options: argparse.Namespace, otherwise: str) -> None:
    """Options of a config beside a folder, where the folder is looked at as it is."""
    pairs: dict[str, Any] = {**options.config_options, **options.override}
    if pairs or options.split:
        what = next(iter(pairs), '--split')
        raise UserError(f'{options.config} is a folder of images, and {what} belongs to a config', otherwise)


def again(options: argparse.Namespace) -> str:
    """FOLDER or CONFIG with its options and overrides, as words of a command line."""
    pairs = {**options.config_options, **options.override}.items()
    return shlex.join([options.config, *(f'{key}={value}' for key, value in pairs)])


def work_folder(work_dir: Path, name: str) -> Path:
    """Where pictures and pages about a dataset go: ``work_dirs/data/NAME``."""
    name = name.lstrip('.').replace('/', '_')
    return work_dir / 'data' / (name if name.isprintable() and name else 'images')
