"""Which checkpoints of finished runs can go, and deleting them. The loops over ``iter_*`` in published scripts did this.

Never deleted: anything of a run that trains; the latest complete checkpoint; a checkpoint that another run was trained on,
such as the tokenizer of a generator; a checkpoint that is not complete, since a user may still want to repair it.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vq.core.errors import UserError
from vq.core.reading import read_json
from vq.io import atomic, history, run_lock
from vq.io.run_folder import LOG
from vq.io.run_list import RunSummary, best_of, config_files, config_of, find_runs, metrics_of, read_journal
from vq.io.runs import find

HINT = 'Say which checkpoints stay: --keep last, last:3, best, best:psnr, every:40000, or several of these.'


@dataclasses.dataclass(frozen=True)
class Keep:
    """The checkpoints that stay: the last ones, the best ones by a figure, those at multiples of a number of steps."""

    last: int = 0
    best: tuple[str | None, ...] = ()  # names of figures; None: the one that ``vq runs`` shows
    every: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True)
class Plan:
    """What would happen to the checkpoints of a run."""

    run: RunSummary
    gone: Sequence[tuple[Path, int]] = ()  # and the bytes that this frees
    kept: Mapping[str, str] = dataclasses.field(default_factory=dict)  # name of a checkpoint -> why it stays
    skipped: str = ''  # why the run is left alone

    @property
    def size(self) -> int:
        return sum(size for _, size in self.gone)


def parse_keep(words: Sequence[str]) -> Keep:
    """``last``, ``last:3``, ``best``, ``best:psnr``, ``every:40000``; several are combined."""
    last, best, every = 0, list[str | None](), list[int]()
    for word in (part for text in words for part in text.split(',')):
        name, _, value = word.partition(':')
        number = int(value) if re.fullmatch(r'[1-9]\d{0,17}', value) else None
        if name == 'last' and (not value or number):
            last = max(last, number or 1)
        elif name == 'best':
            best.append(value or None)
        elif name == 'every' and number:
            every.append(number)
        else:
            raise UserError(f"--keep '{word}' is not understood", HINT)
    if not (last or best or every):
        raise UserError('--prune deletes all checkpoints that --keep does not name, and it names none', HINT)
    return Keep(last, tuple(best), tuple(every))


def plan(run: RunSummary, keep: Keep, needed: Needed) -> Plan:
    if run_lock.is_held(run.folder):
        return Plan(run, skipped='it is training')
    known = history.list_complete(run.folder / 'checkpoints')
    if len(known) < 2:
        return Plan(run, skipped='it has no checkpoint' if not known else 'it has one checkpoint')
    kept: dict[str, str] = {}
    newest = history.latest(run.folder / 'checkpoints')
    for _, path in known[len(known) - keep.last :] if keep.last else []:
        kept[path.name] = f'among the last {keep.last}'
    for number in keep.every:
        kept |= {path.name: f'every {number}' for step, path in known if step % number == 0}
    evaluations, _ = read_journal(run.folder / LOG)
    figures = {step: {**evaluations.get(step, {}), **metrics_of(path)} for step, path in known}
    for wanted in keep.best:
        found = best_of(figures)
        shown = dataclasses.replace(run, best=found).shown
        name = wanted or (None if shown is None else shown[0])
        if name is None or name not in found:
            why = f'no checkpoint has a figure {wanted}' if wanted else 'no checkpoint has figures'
            return Plan(run, skipped=f'{why}, so the best is not known')
        kept[f'iter_{found[name].step}'] = f'best {name}, {found[name].value:.5g}'
    if newest is not None:
        kept.setdefault(newest.name, 'the latest')
    gone = []
    for _, path in known:
        if path.name in kept:
            continue
        if (user := needed.by(path)) is not None:
            kept[path.name] = f'{user} was trained on it'
            continue
        gone.append((path, freed_by(path)))
    return Plan(run, gone, kept)


def delete(planned: Plan) -> list[tuple[Path, int]]:
    """Delete what a plan says, while no training can start. Returns what was deleted."""
    done = []
    with run_lock.held(planned.run.folder, None):
        newest = history.latest(planned.run.folder / 'checkpoints')
        for path, size in planned.gone:
            if path != newest and history.is_complete(path):
                atomic.remove_folder(path)
                done.append((path, size))
    return done


def freed_by(folder: Path) -> int:
    """The bytes of files that have no other name: a backup of hard links keeps the others."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                status = os.lstat(os.path.join(place, name))
            except OSError:
                continue
            total += status.st_size if status.st_nlink == 1 else 0
    return total


class Needed:
    """The checkpoints that other runs were trained on: by path, and by the SHA-256 of a file, wherever it was moved."""

    def __init__(self, root: Path) -> None:
        self.paths: dict[Path, str] = {}
        self.digests: dict[str, str] = {}
        for folder in find_runs(root):
            name = folder.relative_to(root).as_posix()
            latest = history.latest(folder / 'checkpoints')
            for _, checkpoint in history.list_complete(folder / 'checkpoints'):
                for file, digest in frozen_files(checkpoint):
                    self.digests.setdefault(digest, name)
                    self.paths.setdefault(Path(file).resolve().parent, name)
            # a run without a checkpoint has only its config, which names the tokenizer
            for config in [config_of(folder, latest), *(() if latest else _all_of(config_files(folder)))]:
                for weights in weights_in(config):
                    self._note(weights, root, name)

    def _note(self, weights: str, root: Path, name: str) -> None:
        try:
            found = find(weights, root)
        except (UserError, OSError, ValueError):
            return
        if found.checkpoint is not None:
            self.paths.setdefault(found.checkpoint.resolve(), name)

    def by(self, checkpoint: Path) -> str | None:
        """The run that was trained on a checkpoint, or None."""
        place = checkpoint.resolve()
        if place in self.paths:
            return self.paths[place]
        files = (history.read_marker(checkpoint) or {'files': {}})['files'].values()
        return next((self.digests[entry['sha256']] for entry in files if entry.get('sha256') in self.digests), None)


def frozen_files(checkpoint: Path) -> Iterator[tuple[str, str]]:
    """(path, SHA-256) of the files of frozen parts that a checkpoint records."""
    try:
        frozen = dict(read_json(checkpoint / 'meta.json')['frozen'])
    except (OSError, ValueError, KeyError, TypeError):
        return
    yield from ((file, digest) for file, digest in frozen.items() if isinstance(file, str) and isinstance(digest, str))


def _all_of(files: Iterable[Path]) -> Iterator[Mapping[str, Any]]:
    for file in files:
        try:
            found = read_json(file)
        except (OSError, ValueError):
            continue
        if isinstance(found, Mapping):
            yield found


def weights_in(config: Any) -> Iterator[str]:
    """The values of all keys ``weights`` in a config."""
    if isinstance(config, Mapping):
        for key, value in config.items():
            if key == 'weights' and isinstance(value, str):
                yield value
            else:
                yield from weights_in(value)
    elif isinstance(config, list | tuple):
        for value in config:
            yield from weights_in(value)
