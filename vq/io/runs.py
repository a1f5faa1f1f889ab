"""``Run``: a run of this toolkit, one of its checkpoints, or a converted file. It holds paths and data, no modules.

``find(name)`` resolves names for ``vq.load``, for configs and for every command. It tries these places in this order:

1. the path itself, if the name is written as a path: with a separator, or beginning with ``.`` or ``~``
2. ``work_dirs/NAME``, then ``work_dirs/dry_run/NAME``; in a dry run (DRY_RUN=True) the other way round
3. the path itself, for a name without a separator
4. ``pretrained/NAME``
5. all these places again, with the suffix ``.safetensors`` in place of ``.pth``, ``.pt``, ``.ckpt`` or ``.bin``
6. the catalog of published tokenizers

An address (``s3://...``, ``https://...``) is copied into the cache of remote files first: see vq/io/remote_runs.py.

A folder counts if it is a checkpoint, a run, the ``checkpoints`` folder of a run, or contains ``model.safetensors``. A run
means its latest complete checkpoint. In a dry run, so does a checkpoint of another dry run that has no such step: commands
written for more or fewer steps can be tried, and a warning names the checkpoint that is taken.

Nothing in the working directory stands for a run or a catalog entry of the same name unless it is asked for: ``./NAME``. A
name of a published tokenizer skips the third place. It is an error if a name is written without ``./``, is a run below
``work_dirs``, and would mean something in the working directory: a path that is a run in both places, or a name whose run
below ``work_dirs`` has no complete checkpoint.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import logging
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from vq.core import composed, trust
from vq.core.config_json import read as read_json
from vq.core.environment import dry_run
from vq.core.errors import UserError, listing, nearest
from vq.io import atomic, history, remote, remote_runs, spec
from vq.io.digest import file_digest, read_digest
from vq.io.pretrained import pretrained_root
from vq.io.published import catalog
from vq.io.published.about import About, read_about
from vq.io.tensorfile import damaged

logger = logging.getLogger('vq')

RUNS = Path('work_dirs')
CONFIG, OLD_CONFIG = 'config.json', 'config.py'  # of a checkpoint
Files = dict[str, str]  # pretrained file -> SHA-256
Parts = dict[str, list[str]]  # frozen part -> its files
Weights = Literal['auto', 'model', 'ema']  # which weights of a checkpoint; auto: ema if it has them
_OTHERS = ('.pth', '.pt', '.ckpt', '.bin')  # suffixes that are also tried as .safetensors


@dataclasses.dataclass(frozen=True)
class Run:
    """Weights, config and spec of something that was trained. Each is read when it is first used."""

    name: str  # as given to ``find``; the path of what is taken in its place, see ``taken``
    weights: Path  # a checkpoint folder or a file
    checkpoint: Path | None = None  # the folder iter_N
    folder: Path | None = None  # the folder of the run
    trusted: bool = False
    passed_over: str = ''  # what was asked for and is damaged or not there, to be said when the weights are read

    @functools.cached_property
    def config(self) -> dict[str, Any]:
        """The composed config as plain data. For a converted file it contains only the tokenizer."""
        if self.checkpoint is None:
            return {'validator': {'model': {'tokenizer': self.about.tokenizer}}}
        file = self._recorded(CONFIG)
        if file.is_file():
            return read_json(file)
        with trust.trusting(self.trusted):
            return composed.read(self._recorded(OLD_CONFIG))

    @property
    def model(self) -> dict[str, Any]:
        """The config of the validator's task if the validator has its own, otherwise of the trained task."""
        for which in ('validator', 'trainer'):
            model = (self.config.get(which) or {}).get('model')
            if model is not None:
                return dict(model)
        return {}

    @property
    def custom_imports(self) -> tuple[str, ...]:
        """Modules to import because they register parts of the config. If the run is not trusted, an error lists them."""
        with trust.trusting(self.trusted):
            return trust.trusted_modules(self.config.get('custom_imports', []), f"the run '{self.name}'")

    @functools.cached_property
    def spec(self) -> spec.Spec:
        """The spec of inputs and outputs. For checkpoints without ``spec.json`` it is derived from the config."""
        if self.checkpoint is None:
            return self.about.spec
        file = self._recorded(spec.FILE)
        if file.is_file():
            return spec.read(file)
        try:
            return spec.guess(self.config)
        except (TypeError, ValueError, AttributeError) as error:
            raise UserError(f'the config of {self.checkpoint} is damaged: {error}', 'Take another checkpoint.') from error

    @functools.cached_property
    def about(self) -> About:
        """The description that a converted file contains."""
        return read_about(self.weights)

    def file(self, which: Weights = 'auto') -> Path:
        """The file that holds the weights."""
        if self.weights.is_file() or self.checkpoint is None:
            return self.weights
        files = self.marker['files']
        part = ('ema' if 'ema.safetensors' in files else 'model') if which == 'auto' else which
        if f'{part}.safetensors' not in files:
            raise UserError(f'{self.checkpoint} has no {part} weights', f'It has: {listing(files)}.')
        return self.checkpoint / f'{part}.safetensors'

    @property
    def marker(self) -> Mapping[str, Any]:
        """The completion marker of the checkpoint; without a checkpoint, a marker of no files."""
        marker = None if self.checkpoint is None else history.read_marker(self.checkpoint)
        return marker or {'files': {}}

    def _recorded(self, name: str) -> Path:
        """The path of a file of the checkpoint. An error if its SHA-256 is not the one in the marker."""
        assert self.checkpoint is not None
        file, recorded = self.checkpoint / name, self.marker['files'].get(name, {}).get('sha256')
        if recorded is not None and read_digest(file) != recorded:
            raise damaged(file, 'its SHA-256 is not the one recorded when it was written')
        return file

    def check_frozen(self, files: Iterable[Path]) -> None:
        """Raise if one of these pretrained files exists and is not the file that the run was trained with."""
        recorded, _ = self.frozen
        check_frozen(
            self.checkpoint or self.weights, {str(file): recorded[str(file)] for file in files if str(file) in recorded}
        )

    @functools.cached_property
    def frozen(self) -> tuple[Files, Parts]:
        """What the checkpoint records of its frozen parts; nothing for a file."""
        if self.checkpoint is None or 'meta.json' not in self.marker['files']:
            return {}, {}
        file = self._recorded('meta.json')
        try:
            return frozen_entries(json.loads(file.read_bytes()))
        except (OSError, ValueError, AttributeError) as error:
            raise damaged(file, f'{type(error).__name__}: {error}') from error

    def describe(self) -> str:
        """A description in one line: ``tokenizer work_dirs/digits/checkpoints/iter_700: 32 x 32 pixels, ...``."""
        return f'{self.spec.kind} {self.weights}: {self.spec}'


def check_frozen(checkpoint: Path, recorded: Mapping[str, str]) -> None:
    """Raise if a pretrained file exists and does not have the SHA-256 that ``checkpoint`` recorded."""
    for file, digest in recorded.items():
        if Path(file).is_file() and file_digest(file) != digest:  # load_pretrained reports a missing file
            raise UserError(
                f'{checkpoint} was trained with another {file}: SHA-256 {digest:.12} then, {file_digest(file):.12} now',
                'Put the earlier file back.',
            )


def frozen_entries(meta: Mapping[str, Any]) -> tuple[Files, Parts]:
    """The entries of ``meta.json`` about frozen parts, ValueError if they are damaged. The second is new in version 0.3."""
    files, parts = meta.get('frozen'), meta.get('frozen_parts', {})
    if not isinstance(files, dict) or not all(isinstance(digest, str) and '\0' not in file for file, digest in files.items()):
        raise ValueError("'frozen' does not map files to digests")
    if not isinstance(parts, dict) or not all(
        isinstance(found, list) and all(isinstance(file, str) and file in files for file in found) for found in parts.values()
    ):
        raise ValueError("'frozen_parts' does not map parts to files of 'frozen'")
    return files, parts


def find(name: str | Path, work_dir: str | Path = RUNS, trust: bool = False) -> Run:
    """The run that ``name`` means; see the head of this file. With ``trust`` its custom imports are allowed."""
    name, root = str(name), Path(work_dir)
    existing = [place for place in _places(name, root) if place.exists()]
    usable = [run for place in existing if (run := _open(name, place, trust)) is not None]
    if usable:
        _check_shadows(name, root, usable[0])
        return usable[0]
    if existing:
        raise _unusable(existing[0])
    other = next((run for place in _places(name, root) if (run := _of_another_step(name, place, trust)) is not None), None)
    if other is not None:
        return other
    entry = catalog.find(name)
    if entry is None:
        raise _unknown(name, root)
    return Run(name, _converted(entry))


def taken(name: str) -> str:
    """What a config has to name: ``name``, or the path of the checkpoint that ``find`` takes in its place."""
    try:
        run = find(name)
    except UserError:  # loading it raises the error
        return name
    if run.name != name:
        logger.warning('%s', run.passed_over)
    return run.name


def weight_files(name: str | None) -> list[Path]:
    """The weights file of a name, for ``pretrained_files``. Dry runs call this too, and there the file can be missing."""
    try:
        return [] if name is None else [find(name).file()]
    except UserError:  # load_pretrained reports a missing file
        return [Path(name or '')]


def _is_path(name: str) -> bool:
    return os.sep in name or name.startswith(('.', '~'))


def _places(name: str, root: Path) -> list[Path]:
    """Paths to try, best first."""
    path = remote_runs.local_copy(name) if remote.is_remote(name) else Path(name).expanduser()
    if path.is_absolute():
        places = [path]
    else:
        own = [root / name, root / 'dry_run' / name][:: -1 if dry_run() else 1]
        published = catalog.find(name)
        here = [] if published is not None and published.kind is not None else [path]
        places = [path, *own] if _is_path(name) else [*own, *here]
        places.append(pretrained_root() / name)
    return places + [place.with_suffix('.safetensors') for place in places if place.suffix in _OTHERS]


def _open(name: str, place: Path, trust: bool) -> Run | None:
    """The run at ``place``; None if it has no complete weights."""
    if place.is_file():
        own = place.parent if place.suffix == '.safetensors' and history.is_complete(place.parent) else None
        return Run(name, place, own, _folder_of(own), trust)
    checkpoint = atomic.standing(place, history.is_complete)
    if checkpoint is not None:
        return Run(name, checkpoint, checkpoint, _folder_of(checkpoint), trust)
    for folder in (place / 'checkpoints', place):
        if (newest := history.latest(folder)) is not None:
            return Run(name, newest, newest, _folder_of(newest), trust, history.passed_over(folder))
    bare = place / 'model.safetensors'
    torn = place.name.startswith('iter_')  # an incomplete checkpoint is not read
    return Run(name, bare, None, None, trust) if bare.is_file() and not torn else None


def _of_another_step(name: str, place: Path, trust: bool) -> Run | None:
    """For a checkpoint ``iter_N``, or its weights, that is not in a dry run: the latest checkpoint of that dry run."""
    checkpoint = place.parent if place.suffix == '.safetensors' else place
    newest = None if checkpoint.exists() else history.stands_in(checkpoint.parent, [checkpoint.name])
    found = None if newest is None else _open(name, newest if place is checkpoint else newest / place.name, trust)
    said = f'{checkpoint} is not one of the few checkpoints of a dry run; {newest} is taken in its place'
    return found and dataclasses.replace(found, name=str(found.weights), passed_over=said)


def _folder_of(checkpoint: Path | None) -> Path | None:
    return checkpoint.parent.parent if checkpoint is not None and checkpoint.parent.name == 'checkpoints' else None


def _check_shadows(name: str, root: Path, found: Run) -> None:
    """Raise if a name or relative path means ``found`` in the working directory, and another run below ``work_dirs``."""
    here, below = Path(name), root / name
    if name.startswith(('.', '~')) or here.is_absolute() or not (found.weights == here or here in found.weights.parents):
        return
    if here.is_dir() and _is_run(below) and here.resolve() != below.resolve():
        lacking = '' if history.latest(below / 'checkpoints') else ', there without a complete checkpoint'
        raise UserError(f"'{name}' is a run here and in {root}{lacking}", f'Write ./{name} or {below}.')


def _is_run(folder: Path) -> bool:
    return (folder / 'checkpoints').is_dir() or (folder / 'log.jsonl').is_file()


def _converted(entry: catalog.Published) -> Path:
    """The converted file of a published tokenizer."""
    if entry.kind is None:
        raise UserError(f"'{entry.name}' is not a tokenizer ({entry.about})", 'The parts that need it read it themselves.')
    file = pretrained_root() / entry.converted
    if not file.is_file():
        here = f'. If ./{entry.name} is meant, write ./{entry.name}' if os.path.lexists(entry.name) else ''
        raise UserError(
            f"'{entry.name}' ({entry.about}) is not there yet: {file} is missing",
            f'Fetch and convert it: python -m vq.tools.prepare_checkpoints {entry.name}{here}',
        )
    return file


def _unusable(place: Path) -> UserError:
    if place.name.startswith('iter_'):
        return history.not_complete(place)
    damaged = history.describe_damaged(history.list_damaged(place / 'checkpoints'))
    return UserError(
        f'{place} has no complete checkpoint and no model.safetensors' + (f': {damaged}' if damaged else ''),
        'Train the run first, or give a file, a checkpoint or a run.',
    )


def _unknown(name: str, root: Path) -> UserError:
    runs = sorted(str(path.parent.relative_to(root)) for path in root.glob('**/checkpoints')) if root.is_dir() else []
    published = [entry.name for entry in catalog.CATALOG if entry.kind is not None]
    folder = Path(name).expanduser().parent
    beside = [entry.name for entry in folder.iterdir()] if _is_path(name) and folder.is_dir() else []
    near = nearest(name, [*runs, *published]) or nearest(Path(name).name, beside)
    also = f' In {folder}: {listing(beside)}.' if beside else f' Published: {listing(published)}.' if published else ''
    return UserError(
        f"there is no run, checkpoint or file '{name}'{near}", f'Runs in {root}: {listing(runs, 20) or "none"}.{also}'
    )
