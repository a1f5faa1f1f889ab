"""The checkpoints of a run: which are complete, which is the latest, which are kept. Works without torch.

``work_dirs/NAME/checkpoints/`` holds folders ``iter_N`` and the text file ``latest``. A checkpoint is complete if its
marker exists and every file that the marker lists has the recorded size.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import itertools
import math
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from vq.core.environment import dry_run
from vq.core.errors import ConfigError, UserError, listing, nearest
from vq.core.reading import read_bytes, read_json
from vq.io import atomic
from vq.io.atomic import MARKER

LATEST = 'latest'
METRICS = 'metrics.json'  # written after the marker, so not one of the files it lists
_NAME = re.compile(r'iter_(\d{1,18})')
_BRACE = re.compile(r'\{([^{}]*)\}')
_RANGE = re.compile(r'(-?\d+)\.\.(-?\d+)(?:\.\.(-?\d+))?')
_MOST_NAMES = 100_000
_LONGEST_NUMBER = 18  # digits of a step in a pattern
_STATE = re.compile(r'training\.pt|rank_\d+\.pt|optimizer(_\d+)?\.(json|safetensors)')  # files of drop_state


def read_marker(path: Path) -> dict[str, Any] | None:
    """The content of the completion marker; ``None`` if it is missing or cannot be read."""
    try:
        marker: dict[str, Any] = read_json(path / MARKER)
        sizes = {name: entry['size'] for name, entry in marker['files'].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    sound = all(type(size) is int and Path(name).name == name and '\0' not in name for name, size in sizes.items())
    return marker if sizes and sound else None


def is_complete(path: Path) -> bool:
    """Whether the marker exists and every file it lists has the recorded size."""
    marker = read_marker(path)
    return marker is not None and not faulty_sizes(path, marker)


def faulty_sizes(path: Path, marker: dict[str, Any]) -> list[str]:
    """A message for each file that is missing or whose size differs from the marker."""
    found = []
    for name, entry in marker['files'].items():
        try:
            size = (path / name).stat().st_size
        except OSError:
            found.append(f'{name} is missing')
            continue
        if size != entry['size']:
            found.append(f'{name} has {size} bytes instead of {entry["size"]}')
    return found


def list_complete(folder: Path) -> list[tuple[int, Path]]:
    """The complete checkpoints of ``checkpoints/`` with their steps, in order of step."""
    if not folder.is_dir():
        return []
    steps = set()
    for entry in folder.iterdir():
        # the hidden name: a writer moved the old checkpoint away and was killed before it moved the new one in
        match = _NAME.fullmatch(entry.name) or re.fullmatch(r'\.iter_(\d+)\.old-.*', entry.name)
        if match is not None:
            steps.add(int(match.group(1)))
    places = ((step, atomic.standing(folder / f'iter_{step}', is_complete)) for step in sorted(steps))
    return [(step, place) for step, place in places if place is not None]


def list_damaged(folder: Path) -> list[tuple[Path, str]]:
    """The checkpoints of ``checkpoints/`` that are not complete and what is wrong with each, the newest first.

    A checkpoint that the file ``latest`` names and that is missing counts, too.
    """
    names = {entry.name for entry in folder.iterdir()} if folder.is_dir() else set()
    names.add(_named_latest(folder))
    damaged = [folder / name for name in names if _NAME.fullmatch(name) and not atomic.standing(folder / name, is_complete)]
    return [(path, why_incomplete(path)) for path in sorted(damaged, key=step_of, reverse=True)]


def step_of(path: Path) -> int:
    """``iter_40`` -> 40, also of the hidden name under which a killed writer left it."""
    match = re.search(r'iter_(\d+)', path.name)
    assert match is not None, path
    return int(match[1])


def _named_latest(folder: Path) -> str:
    try:
        return read_bytes(folder / LATEST).decode().strip()
    except (OSError, ValueError):
        return ''


def passed_over(folder: Path) -> str:
    """What to say where ``latest`` is used and newer checkpoints than that are damaged; empty if none is."""
    taken = latest(folder)
    newer = [] if taken is None else [item for item in list_damaged(folder) if step_of(item[0]) > step_of(taken)]
    if taken is None or not newer:
        return ''
    lost = step_of(newer[0][0]) - step_of(taken)
    return f'{describe_damaged(newer)}; {taken} is taken in its place, which has {lost} steps less'


def describe_damaged(damaged: list[tuple[Path, str]], most: int = 5) -> str:
    more = f'; and {len(damaged) - most} more' if len(damaged) > most else ''
    return '; '.join(f'{path} is damaged ({why})' for path, why in damaged[:most]) + more


def latest(folder: Path) -> Path | None:
    """The checkpoint that the file ``latest`` names, if that is complete; otherwise the newest complete one."""
    name = _named_latest(folder)
    if _NAME.fullmatch(name):
        place = atomic.standing(folder / name, is_complete)
        if place is not None:
            return place
    known = list_complete(folder)
    return known[-1][1] if known else None


def stands_in(folder: Path, names: Sequence[str]) -> Path | None:
    """In a dry run, the latest checkpoint of ``folder``, for steps that it does not have. None elsewhere, and for other names.

    Commands name steps of full runs (``iter_150000``), or of dry runs with another number of steps (``iter_7``).
    """
    steps = bool(names) and all(_NAME.fullmatch(name) for name in names)
    return latest(folder) if steps and dry_run() and 'dry_run' in folder.parts else None


def expand(folder: Path, *patterns: str) -> tuple[list[tuple[int, Path]], list[str]]:
    """The complete checkpoints that match names, brace or glob patterns, 'latest' or 'all', in order of step; and the names
    without a complete checkpoint. It is an error if all are without. A shell may have expanded the braces before.

    In a dry run, steps that it does not have mean the latest one: see ``stands_in``.
    """
    known = list_complete(folder)
    chosen: dict[int, Path] = {}
    missing: list[str] = []
    for pattern in patterns:
        if pattern == 'latest':
            newest = latest(folder)
            matches = {step: path for step, path in known if path == newest}
        elif pattern == 'all':
            matches = dict(known)
        else:
            matches, without = _matches(known, pattern)
            missing += without
        chosen |= matches
    if not chosen and (newest := stands_in(folder, missing)) is not None:
        chosen = {step_of(newest): newest}
    if not chosen:
        there = [f'iter_{step}' for step, _ in known]
        hint = f'There are: {", ".join(there[:20])}{", ..." if len(there) > 20 else ""}.' if there else 'There is none yet.'
        asked = ', '.join(f"'{pattern}'" for pattern in patterns)
        raise UserError(f'no complete checkpoint in {folder} is called {asked}{nearest(patterns[0], there)}', hint)
    return sorted(chosen.items()), missing


def _matches(known: list[tuple[int, Path]], pattern: str) -> tuple[dict[int, Path], list[str]]:
    """The checkpoints of a brace or glob pattern, and its names without a checkpoint."""
    names = list(dict.fromkeys(itertools.islice(expand_braces(pattern), _MOST_NAMES + 1)))
    if len(names) > _MOST_NAMES:
        raise UserError(f"'{pattern}' stands for more than {_MOST_NAMES} names", "Narrow the pattern, or give 'all'.")
    by_name = {f'iter_{step}': (step, path) for step, path in known}
    found: dict[int, Path] = {}
    missing = []
    for name in names:
        is_glob = '*' in name or '?' in name
        hits = fnmatch.filter(by_name, name) if is_glob else [name] if name in by_name else []
        found |= dict(by_name[hit] for hit in hits)
        missing += [] if hits else [name]
    return found, missing


def expand_braces(pattern: str) -> Iterator[str]:
    """Expand ``iter_{15..26}0000``, ``iter_{2,4}`` or ``iter_{10..50..20}`` as a shell does."""
    match = _BRACE.search(pattern)
    if match is None:
        yield pattern
        return
    for item in _alternatives(match.group(1)):
        yield from expand_braces(pattern[: match.start()] + item + pattern[match.end() :])


def _alternatives(text: str) -> Iterator[str]:
    match = _RANGE.fullmatch(text)
    if match is None:
        yield from text.split(',')
        return
    if any(len(end or '') > _LONGEST_NUMBER for end in match.groups()):
        raise UserError(f"'{text:.40}...' is no range of steps", f'Steps have at most {_LONGEST_NUMBER} digits.')
    first, last = int(match.group(1)), int(match.group(2))
    step = abs(int(match.group(3) or 1)) or 1
    padded = any(re.match(r'-?0\d', end) for end in match.groups()[:2])
    width = max(map(len, match.groups()[:2])) if padded else 0
    for number in range(first, last + (1 if last >= first else -1), step if last >= first else -step):
        yield f'{number:0{width}d}'


@dataclasses.dataclass(frozen=True)
class Retention:
    """Which checkpoints are kept: the last ``keep_last``, the ``keep_best`` by a metric, multiples of ``keep_every``.

    ``keep_last=None`` keeps all. The latest checkpoint is always kept. The newest ``keep_state`` checkpoints can be resumed
    from; older ones keep weights only. None: all can.
    """

    keep_last: int | None = None
    keep_best: int = 0
    best_metric: str | None = None
    best_is: Literal['max', 'min'] = 'max'
    keep_every: int | None = None
    keep_state: int | None = None

    def __post_init__(self) -> None:
        if self.keep_best and self.best_metric is None:
            raise ConfigError(
                'keep_best needs best_metric, the name of the metric that tells which is best',
                "Add best_metric='...' or take keep_best out.",
            )
        if self.best_is not in ('max', 'min'):
            raise ConfigError(f"best_is is {self.best_is!r}, and 'max' or 'min' is needed", "Say best_is='max' or 'min'.")
        for name, least in (('keep_last', 0), ('keep_best', 0), ('keep_every', 1), ('keep_state', 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ConfigError(f'{name} is {value}, and at least {least} is needed', 'Give a larger number, or None.')


def prune(folder: Path, retention: Retention) -> list[Path]:
    """Delete the complete checkpoints that ``retention`` does not keep, on the first rank only. Returns their paths."""
    from vq.core import collectives

    if not collectives.is_main() or (retention.keep_last is None and retention.keep_state is None):
        return []
    known = list_complete(folder)
    if retention.keep_state is not None:
        for _, path in known[: -retention.keep_state]:
            drop_state(path)
    if retention.keep_last is None:
        return []
    kept = {path for step, path in known if retention.keep_every and step % retention.keep_every == 0}
    kept |= {path for _, path in known[max(0, len(known) - retention.keep_last) :]}
    kept |= set(_best(known, retention))
    newest = latest(folder)
    removed = []
    for _, path in known:
        if path in kept or path == newest:
            continue
        try:
            atomic.remove_folder(path)
            removed.append(path)
        except OSError as error:  # costs disk space, not the run
            warnings.warn(f'{path} is not kept and cannot be deleted: {error}', stacklevel=2)
    return removed


def drop_state(path: Path) -> None:
    """Delete the state of optimizers and random generators of a checkpoint. Weights stay, and the checkpoint is complete.

    The marker is replaced first: a kill in between leaves files that the marker does not list, for the next call.
    """
    marker = read_marker(path)
    if marker is None:
        return
    weights = {name: entry for name, entry in marker['files'].items() if not _STATE.fullmatch(name)}
    try:
        if len(weights) < len(marker['files']):
            atomic.write_json(path / MARKER, {**marker, 'files': weights})
        for file in path.iterdir():
            if _STATE.fullmatch(file.name) and file.name not in weights:
                file.unlink(missing_ok=True)
    except OSError as error:  # costs disk space, not the run
        warnings.warn(f'the state of optimizers in {path} cannot be deleted: {error}', stacklevel=2)


def is_resumable(path: Path) -> bool:
    """Whether a complete checkpoint has the state of optimizers and random generators."""
    marker = read_marker(path)
    return marker is not None and 'training.pt' in marker['files']


def _best(known: list[tuple[int, Path]], retention: Retention) -> list[Path]:
    if retention.best_metric is None:
        return []
    sign = 1.0 if retention.best_is == 'max' else -1.0
    scored = [(sign * score, path) for _, path in known if math.isfinite(score := _metric(path, retention.best_metric))]
    return [path for _, path in sorted(scored, key=lambda item: item[0], reverse=True)[: retention.keep_best]]


def note_metrics(path: Path, metrics: Mapping[str, float]) -> None:
    """Add validation metrics of a checkpoint to its ``metrics.json``, which ``prune`` reads."""
    target = path / METRICS
    try:
        known = _metrics_in(target) if target.exists() else {}
    except (OSError, ValueError) as error:
        warnings.warn(f'{target} is damaged ({error}): the metrics in it are lost, and it is written anew', stacklevel=2)
        known = {}
    atomic.write_json(target, {**known, **metrics})


def _metrics_in(file: Path) -> dict[str, Any]:
    known = read_json(file)
    if not isinstance(known, dict):
        raise ValueError(f'it holds a {type(known).__name__}')
    return known


def _metric(path: Path, name: str) -> float:
    try:
        return float(_metrics_in(path / METRICS).get(name, math.nan))
    except (OSError, ValueError, TypeError, OverflowError):  # not validated yet, or damaged
        return math.nan


def not_complete(path: Path) -> UserError:
    """The error for a checkpoint that is missing or incomplete."""
    hint = f'Complete ones there: {listing(f"iter_{step}" for step, _ in list_complete(path.parent)) or "none"}.'
    if not path.is_dir():
        return UserError(f'there is no checkpoint {path}', hint)
    return UserError(f'{path} is not a complete checkpoint: {why_incomplete(path)}', hint)


def why_incomplete(path: Path) -> str:
    if not path.is_dir():
        return 'it is missing'
    marker = read_marker(path)
    return f'it has no {MARKER} file that can be read' if marker is None else listing(faulty_sizes(path, marker))
