"""The runs below a folder: kind, state, step, best figures, size. Reads small files only, no weights, and builds nothing."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from vq.core import config_json
from vq.core.errors import UserError
from vq.core.reading import open_regular, parse_json, read_json
from vq.io import comparable, history, run_lock, spec
from vq.io.run_folder import LOG
from vq.io.runs import CONFIG

State = Literal['running', 'done', 'stopped', 'damaged', 'never checkpointed']

TAIL = 1 << 24  # bytes at the end of a journal that are searched for evaluations
DEEPEST = 8  # levels of folders below that of all runs
# within one run losses can be compared too
LOWER = re.compile(rf'{comparable.LOWER}|(.*_)?token_loss|loss/.*')
HIGHER = re.compile(comparable.HIGHER)
FIRST = ('fid', 'generate_fid', 'reconstruct_fid', 'rfid', 'psnr', 'top1', 'loss/cross_entropy', 'loss/total')  # to show
NOT_CONFIGS = ('lock.json', 'manifest.json')


@dataclasses.dataclass(frozen=True)
class Best:
    """The best value of a figure, and the step of its evaluation."""

    value: float
    step: int


@dataclasses.dataclass(frozen=True)
class RunSummary:
    """What ``vq runs`` says about a run."""

    name: str  # below the folder of all runs
    folder: Path
    kind: str
    state: State
    step: int | None  # the last one that is known
    iters: int | None
    checkpoints: int
    best: Mapping[str, Best]
    size: int  # bytes
    changed: float  # seconds since 1970
    config: str

    def as_json(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self), 'folder': str(self.folder)}

    @property
    def shown(self) -> tuple[str, Best] | None:
        """The figure to show."""
        name = next((name for name in FIRST if name in self.best), None) or next(iter(self.best), None)
        return None if name is None else (name, self.best[name])


def list_runs(root: Path, dry: bool = False) -> list[RunSummary]:
    """All runs below a folder; with ``dry`` also those below its ``dry_run``."""
    return [summary(folder, root) for folder in find_runs(root) if dry or folder.relative_to(root).parts[0] != 'dry_run']


def find_runs(root: Path, depth: int = 0) -> Iterator[Path]:
    """The folders of runs: those with checkpoints or a journal. A run inside the folder of another is found too."""
    try:
        entries = sorted(os.scandir(root), key=lambda entry: entry.name)
    except OSError:  # not allowed, or gone in the meantime
        return
    folders = [entry for entry in entries if entry.is_dir(follow_symlinks=depth == 0) and not entry.name.startswith('.')]
    names = {entry.name for entry in entries}
    if depth and ('checkpoints' in {entry.name for entry in folders} or LOG in names):
        yield Path(root)
    if depth < DEEPEST:
        own = {'checkpoints', 'eval', 'val', 'pictures', 'backends', 'tokens', 'samples', 'shards'} if depth else set()
        for entry in folders:
            if entry.name not in own and not entry.name.startswith('old_'):
                yield from find_runs(Path(entry.path), depth + 1)


def summary(folder: Path, root: Path) -> RunSummary:
    places = steps_in(folder / 'checkpoints')
    latest = history.latest(folder / 'checkpoints') if places else None
    config = config_of(folder, latest)
    evaluations, last = read_journal(folder / LOG)
    for number, place in places:
        evaluations.setdefault(number, metrics_of(place))
    step = max([*([history.step_of(latest)] if latest else []), *([last] if last is not None else [])], default=None)
    iters = length_of(config)
    size, changed = measure(folder)
    return RunSummary(
        name=folder.relative_to(root).as_posix(),
        folder=folder,
        kind=kind_of(latest, config),
        state=state_of(folder, places, latest, iters),
        step=step,
        iters=iters,
        checkpoints=len(places),
        best=best_of(evaluations),
        size=size,
        changed=changed,
        config=config_name(folder),
    )


def steps_in(folder: Path) -> list[tuple[int, Path]]:
    """The checkpoints of a run in order of step, complete or not. Their files are not looked at."""
    try:
        found = [
            (int(match[1]), entry) for entry in folder.iterdir() if (match := re.fullmatch(r'iter_(\d{1,18})', entry.name))
        ]
    except OSError:
        return []
    return sorted(found)


def state_of(folder: Path, places: list[tuple[int, Path]], latest: Path | None, iters: int | None) -> State:
    if run_lock.is_held(folder):
        return 'running'
    if latest is None:
        return 'damaged' if places else 'never checkpointed'
    if places and not history.is_complete(places[-1][1]):
        return 'damaged'
    return 'done' if iters is not None and history.step_of(latest) >= iters else 'stopped'


def config_of(folder: Path, latest: Path | None) -> Mapping[str, Any]:
    """The composed config of the newest checkpoint, or of the folder; {} if there is none that can be read."""
    files = [] if latest is None else [latest / CONFIG]
    for file in [*files, *config_files(folder)]:
        try:
            found = config_json.read(file)
        except (OSError, ValueError, UserError):
            continue
        if isinstance(found, Mapping):
            return found
    return {}


def config_files(folder: Path) -> list[Path]:
    """The composed configs in a run folder, the newest first."""
    files = [file for file in folder.glob('*.json') if file.name not in NOT_CONFIGS]
    return sorted(files, key=lambda file: -_modified(file))


def config_name(folder: Path) -> str:
    files = config_files(folder)
    return files[0].stem if files else ''


def kind_of(latest: Path | None, config: Mapping[str, Any]) -> str:
    if latest is not None and (latest / spec.FILE).is_file():
        try:
            return spec.read(latest / spec.FILE).kind
        except UserError:
            return '?'
    try:
        return spec.guess(config).kind if config else '?'
    except (TypeError, ValueError, AttributeError):
        return '?'


def length_of(config: Mapping[str, Any]) -> int | None:
    """The steps of the whole training; None if the config counts in epochs or samples."""
    iters = (config.get('trainer') or {}).get('iters')
    return iters if isinstance(iters, int) else None


def read_journal(file: Path) -> tuple[dict[int, dict[str, Any]], int | None]:
    """Step -> figures of its evaluation, and the last step. Of a long journal only the end is read."""
    found: dict[int, dict[str, Any]] = {}
    try:
        with open_regular(file) as stream:
            size = os.fstat(stream.fileno()).st_size
            stream.seek(max(0, size - TAIL))
            lines = stream.read().split(b'\n')
    except OSError:
        return found, None
    last = None
    for line in lines if size <= TAIL else lines[1:]:
        if b'"kind": "eval"' in line:
            record = _parsed(line)
            if record is not None:
                found[record['step']] = record
    for line in reversed(lines):  # the last one can be cut off
        record = _parsed(line)
        if record is not None:
            last = record['step']
            break
    return found, last


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        record = parse_json(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) and type(record.get('step')) is int else None


def metrics_of(checkpoint: Path) -> dict[str, Any]:
    """The figures of a checkpoint, which an evaluation or ``vq val`` noted."""
    try:
        found = read_json(checkpoint / history.METRICS)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def best_of(evaluations: Mapping[int, Mapping[str, Any]]) -> dict[str, Best]:
    """The best value of each figure that has a better direction; the first of equal ones."""
    best: dict[str, Best] = {}
    for step in sorted(evaluations):
        for name, value in evaluations[step].items():
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                continue
            lower = LOWER.fullmatch(name) is not None
            if not lower and not HIGHER.fullmatch(name):
                continue
            before = best.get(name)
            if before is None or (value < before.value if lower else value > before.value):
                best[name] = Best(float(value), step)
    return best


def measure(folder: Path) -> tuple[int, float]:
    """Bytes of all files, links not followed, and the time of the last change that the training made."""
    total, changed = 0, _modified(folder)
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(place, name)).st_size
            except OSError:  # deleted meanwhile
                continue
    marks = (folder / LOG, folder / 'log.txt', folder / 'checkpoints' / history.LATEST)
    times = [found for mark in marks if (found := _modified(mark))]
    return total, max(times, default=changed)


def _modified(file: Path) -> float:
    try:
        return file.stat().st_mtime
    except OSError:
        return 0.0


def as_text(summaries: Iterable[RunSummary]) -> str:
    """JSON for other programs."""
    return json.dumps([summary.as_json() for summary in summaries], indent=2)
