"""Results as traceable JSON: the figures, the weights, the command, the versions."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

import vq
from vq.assembly.compose import digest, runner_config
from vq.assembly.ranks import without_ranks
from vq.core import collectives
from vq.core.config import PyConfig
from vq.core.reading import read_json
from vq.io import atomic
from vq.io.digest import file_digest
from vq.io.runs import find
from vq.runners.context import RunContext
from vq.runners.validator import Validator

logger = logging.getLogger('vq')


def describe(config: PyConfig, options: Any, files: Sequence[str]) -> dict[str, Any]:
    """The identity of a measurement: ``read_same`` reuses a result if its description is equal."""
    return {
        'contents': [identity(file) for file in files],
        'config_hash': digest(without_ranks(runner_config(config, 'validator'))),
        'files': [str(file) for file in files],
        'weights': options.weights,
        'seed': options.seed,
    }


def identity(name: str) -> str:
    """A digest of the content of a checkpoint or file: a retrained one of the same name has another."""
    run = find(name)
    if run.weights == run.checkpoint:
        files = run.marker['files']
        return digest({file: entry['sha256'] for file, entry in files.items() if file.endswith('.safetensors')})
    return file_digest(run.weights)[:16]


def write(
    file: Path,
    measured: Mapping[str, Any],
    context: RunContext,
    config: PyConfig,
    options: Any,
    files: Sequence[str],
    validator: Validator,
) -> dict[str, Any]:
    """Save one result on the first rank; return it on every rank."""
    import torch

    dataset = validator.dataset
    record = {
        'name': context.name,
        'results': {name: encode(value) for name, value in measured.items()},
        'dataset': {'name': dataset.name, 'split': dataset.split, 'fingerprint': dataset.fingerprint()},
        'metrics': {name: said for name, metric in validator.metrics.items() if (said := metric.describe())},
        'measurement': describe(config, options, files),
        'weights_hash': context.meta.get('weights_hash'),
        'loaded': context.meta.get('loaded'),
        'differs_from_run': context.meta.get('differs_from_run', []),
        'random_weights': context.random_weights,
        'command': context.command,
        'world_size': collectives.size(),
        'versions': {'vq': vq.__version__, 'torch': torch.__version__},
    }
    if collectives.is_main():
        file.parent.mkdir(parents=True, exist_ok=True)
        atomic.write_json(file, record)
    return record


def read_same(file: Path, config: PyConfig, options: Any, files: Sequence[str]) -> dict[str, Any] | None:
    """An earlier result of the same measurement, or None."""
    if not file.exists():
        return None
    try:
        record = read_json(file)
        if not isinstance(record, dict) or not isinstance(record.get('results'), dict):
            raise ValueError('it holds no results')
    except (OSError, ValueError) as error:
        logger.warning('%s is damaged (%s): it is measured again', file, error)
        return None
    return record if record.get('measurement') == describe(config, options, files) else None


def encode(value: Any) -> Any:
    """Infinite and NaN floats as text: JSON has neither."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def print_table(found: Mapping[str, Mapping[str, Any]], most: int = 8) -> None:
    """Print metrics as rows, checkpoints as columns, at most ``most`` of them side by side."""
    labels = [*found]
    for start in range(0, len(labels), most):
        part = {label: found[label]['results'] for label in labels[start : start + most]}
        names = dict.fromkeys(name for results in part.values() for name, value in results.items() if value is not None)
        table = Table(show_edge=False)
        table.add_column('')
        for label in part:
            table.add_column(label, justify='right')
        for name in names:
            table.add_row(name, *(show(results.get(name)) for results in part.values()))
        Console(width=max(80, 30 + 16 * len(part))).print(table)


def show(value: Any) -> str:
    if value is None:
        return '-'
    return f'{value:.5g}' if isinstance(value, float) else str(value)
