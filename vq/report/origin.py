"""Where a run comes from and what it cost: its journal, commands, versions, the state of the code. Builds nothing."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vq.core import config_json
from vq.core.errors import UserError
from vq.core.reading import read_bytes, read_json
from vq.io import history, run_lock
from vq.io.runs import Run
from vq.report.facts import Origin, Results
from vq.runners import journal

LARGEST = 2_000_000  # bytes of a results file, or of git.txt


def origin_of(run: Run) -> Origin:
    """Reads what the folder of a run says. Nothing in it is executed, and a damaged file costs its part of the page alone."""
    folder, left_out = run.folder, list[str]()
    lines: list[dict[str, Any]] = []
    if folder is not None and (folder / 'log.jsonl').is_file():
        try:
            lines = journal.read(folder / 'log.jsonl')
        except UserError as error:
            left_out.append(f'losses and evaluations: {error.message}')
    if not lines:
        left_out.append('the course of the training: there is no log.jsonl')
    meta = meta_of(run)
    results = [] if folder is None else results_of(folder)
    versions = {**{str(key): str(value) for key, value in (meta.get('versions') or {}).items()}}
    trained = [(name, versions[name]) for name in sorted(versions)]
    seed = [('seed', str(meta['seed']))] if meta.get('seed') is not None else []
    return Origin(
        name=run.name,
        journal=lines,
        commands=commands_of(meta, results),
        config=config_json.dumps(run.config),
        machine=[*trained, *seed],
        commands_are='The commands that the run recorded.' if commands_of(meta, results) else '',
        tiny=folder is not None and 'dry_run' in folder.parts,
        state=state_of(run, lines),
        cost=cost_of(lines, run, meta),
        git=git_of(folder),
        results=[(place, found) for place, found, _ in results],
        left_out=left_out,
    )


def meta_of(run: Run) -> dict[str, Any]:
    """``meta.json`` of the checkpoint; {} if it has none that can be read."""
    if run.checkpoint is None:
        return {}
    try:
        meta = read_json(run.checkpoint / 'meta.json')
    except (OSError, ValueError):
        return {}
    return meta if isinstance(meta, dict) else {}


def results_of(folder: Path) -> list[tuple[str, Results, Mapping[str, Any]]]:
    """(place, results, the whole record) of each results file in the folder of a run, in the order of steps."""
    found: list[tuple[str, Results, Mapping[str, Any]]] = []
    for file in sorted(folder.glob('*/*/results.json'), key=lambda file: (file.parent.parent.name, _number(file.parent.name))):
        try:
            record = read_json(file, LARGEST)
        except (OSError, ValueError):
            continue
        if isinstance(record, dict) and isinstance(record.get('results'), dict):
            found.append((file.parent.name, record['results'], record))
    return found


def _number(name: str) -> int:
    match = re.search(r'\d{1,18}', name)
    return int(match[0]) if match else -1


def commands_of(meta: Mapping[str, Any], results: Sequence[tuple[str, Results, Mapping[str, Any]]]) -> list[tuple[str, None]]:
    """The command lines that checkpoints and results record, each once, in order."""
    trained = (meta.get('extra') or {}).get('command')
    said = [trained, *(record.get('command') for _, _, record in results)]
    return [(line, None) for line in dict.fromkeys(line for line in said if isinstance(line, str))]


def state_of(run: Run, lines: Sequence[Mapping[str, Any]]) -> str:
    """What the lead of the page says about a run that has not ended, or whose newest checkpoint cannot be used."""
    said = []
    if run.folder is not None and run_lock.is_held(run.folder):
        trained = [line['step'] for line in lines if line['kind'] == 'train']
        step = 'the beginning' if run.checkpoint is None else f'step {history.step_of(run.checkpoint)}'
        now = f', and the training is at step {trained[-1]}' if trained else ''
        said.append(f'This run is still training: the page shows {step}{now}.')
    if run.passed_over:
        said.append(f'{run.passed_over}.')
    return ''.join(f'{sentence} ' for sentence in said)


def cost_of(lines: Sequence[Mapping[str, Any]], run: Run, meta: Mapping[str, Any]) -> list[tuple[str, str]]:
    train = [line for line in lines if line['kind'] == 'train']
    found = []
    timings = [line['timing'] for line in train if isinstance(line.get('timing'), dict)]
    speeds = sorted(timing['images_per_second'] for timing in timings if _is_number(timing.get('images_per_second')))
    if train:
        found.append(('steps', f'{train[-1]["step"]:,}'))
    if train and _is_number(train[-1].get('samples')):
        found.append(('images seen', f'{train[-1]["samples"]:,}'))
    if speeds:
        found.append(('images a second, median', f'{speeds[len(speeds) // 2]:.1f}'))
    seconds = seconds_of_training(train)
    if seconds is not None:
        found.append(('time of the steps', in_words(seconds)))
    memory = [timing['memory_mb'] for timing in timings if _is_number(timing.get('memory_mb'))]
    if memory:
        found.append(('memory, at most', f'{max(memory):,.0f} MB'))
    waits = [timing['data_wait'] for timing in timings if _is_number(timing.get('data_wait'))]
    if waits:
        found.append(('of it waiting for data', f'{100 * sum(waits) / len(waits):.0f} %'))
    if isinstance(meta.get('world_size'), int):
        found.append(('processes', str(meta['world_size'])))
    if run.checkpoint is not None:
        files = run.marker['files']
        found.append(('a checkpoint', f'{sum(entry["size"] for entry in files.values()) / 1e6:.1f} MB'))
        found.append(('written', time.strftime('%Y-%m-%d %H:%M', time.localtime(run.checkpoint.stat().st_mtime))))
    return found


def seconds_of_training(train: Sequence[Mapping[str, Any]]) -> float | None:
    """The time of all steps, from the lines of the log: (steps of an interval) x (seconds a step)."""
    total, before, known = 0.0, 0, False
    for line in train:
        timing = line.get('timing')
        step = line['step']
        if isinstance(timing, dict) and _is_number(timing.get('seconds_per_step')) and step > before:
            total, known = total + (step - before) * timing['seconds_per_step'], True
        before = step
    return total if known else None


def in_words(seconds: float) -> str:
    if seconds < 120:
        return f'{seconds:.0f} s'
    return f'{seconds / 60:.0f} min' if seconds < 7200 else f'{seconds / 3600:.1f} h'


def git_of(folder: Path | None) -> str:
    file = None if folder is None else folder / 'git.txt'
    if file is None or not file.is_file():
        return ''
    try:
        return read_bytes(file, LARGEST).decode(errors='replace')
    except (OSError, ValueError) as error:
        return f'{file} cannot be read: {error}'


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
