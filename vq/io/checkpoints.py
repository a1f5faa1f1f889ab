"""Checkpoints: all state that a bit-identical resume needs, in one folder that is written atomically.

``checkpoints/iter_N/``: ``model.safetensors``, ``ema.safetensors`` where there is one, ``training.pt`` and one
``rank_R.pt`` per rank (plain containers, loadable with ``weights_only=True``), ``config.json`` (in older ones ``config.py``),
``spec.json`` (see ``vq/io/spec.py``), ``meta.json`` and ``COMPLETE``, which is written last and lists every file with its
size and SHA-256. After that the file ``checkpoints/latest`` is updated.

Under FSDP each rank writes its shards of the optimizer states: see ``vq/io/shard_files.py``. Model and EMA weights are
never sharded in a checkpoint, so code that reads weights reads all checkpoints alike.
"""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import vq
from vq.core import collectives, config_json
from vq.core.errors import RunFailure, UserError
from vq.core.reading import read_json
from vq.io import atomic, plain, runs, spec, tensorfile
from vq.io.atomic import MARKER
from vq.io.digest import file_digests
from vq.io.formats import name_callbacks
from vq.io.history import (
    LATEST,
    Retention,
    expand,
    is_complete,
    is_resumable,
    latest,
    list_complete,
    not_complete,
    prune,
    read_marker,
)
from vq.io.ranks import run_on_all_ranks
from vq.io.sharded import local
from vq.io.writer import Writer, disk_errors

__all__ = [
    'Checkpoint',
    'Retention',
    'expand',
    'is_complete',
    'latest',
    'list_complete',
    'load',
    'model_state',
    'prune',
    'save',
    'sweep',
]

FORMAT_VERSION = 2
# version -> function from the contents of that version (a dict with the keys of ``_read``) to those of the next version
MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {1: name_callbacks}
KEPT = 'the previous checkpoint is intact'
_EACH = ('rank_', 'optimizer_')  # prefixes of files of one rank; a rank verifies those that it reads

Files = dict[str, dict[str, Any]]  # name -> size, sha256


@dataclasses.dataclass
class Checkpoint:
    """The state after ``step`` steps. ``world_size`` and ``versions`` are filled in by ``save``."""

    step: int
    model: dict[str, Tensor]  # without the task's frozen prefixes: see ``model_state``
    training: dict[str, Any] = dataclasses.field(default_factory=dict)  # optimizers, schedules, callbacks: plain containers
    ema: dict[str, Tensor] | None = None
    per_rank: dict[str, Any] | None = None  # of this rank: random generators, position in the data
    config_text: str = ''  # JSON, see vq/core/config_json.py
    spec: dict[str, Any] | None = None  # what the model takes and gives: see vq/io/spec.py
    samples_seen: int = 0
    seed: int | None = None
    frozen: dict[str, str] = dataclasses.field(default_factory=dict)  # pretrained file of a frozen part -> SHA-256
    frozen_parts: dict[str, list[str]] = dataclasses.field(default_factory=dict)  # name of a frozen part -> its files
    extra: dict[str, Any] = dataclasses.field(default_factory=dict)  # any JSON values, such as a logger's run id
    world_size: int = 1
    versions: dict[str, str] = dataclasses.field(default_factory=dict)
    shards: Path | None = None  # set by ``load``: the folder, if its optimizer states are sharded (vq.io.shard_files)


_META = ('step', 'samples_seen', 'seed', 'frozen', 'extra', 'world_size', 'versions')


def model_state(module: nn.Module, keep_vars: bool = False) -> dict[str, Tensor]:
    """The state dict of a task without its frozen prefixes, as checkpoints hold it; ``keep_vars`` as in ``state_dict``."""
    prefixes = frozen_prefixes(module)
    state = module.state_dict(keep_vars=keep_vars)
    return {key: value for key, value in state.items() if not stands_under(key, prefixes)}


def frozen_prefixes(module: nn.Module) -> tuple[str, ...]:
    """The module's ``frozen_prefixes()``; none if it has no such method."""
    declared = getattr(module, 'frozen_prefixes', None)
    return tuple(declared()) if declared is not None else ()


def stands_under(key: str, prefixes: tuple[str, ...]) -> bool:
    """Whether a state dict key has one of these prefixes: 'encoder' means 'encoder.*', not 'encoder2.*'."""
    return any(key == prefix or key.startswith(prefix if prefix.endswith('.') else f'{prefix}.') for prefix in prefixes)


def save(folder: Path, checkpoint: Checkpoint, shared_out: Mapping[str, Tensor] | None = None) -> Path:
    """Write ``folder/iter_N``; ``folder`` itself can also be named ``iter_N``.

    All ranks call it: the first rank writes the common files, each rank its own. ``shared_out`` are sharded tensors: each
    rank writes its shards.
    """
    name = f'iter_{checkpoint.step}'
    final = folder if folder.name == name else folder / name
    main = collectives.is_main()
    aside = Path(run_on_all_ranks(lambda: _begin(final) if main else '', 'making room for a checkpoint')[0])
    try:
        parts = run_on_all_ranks(lambda: _write(aside, final, checkpoint), f'writing {final}')
        if shared_out:
            parts += run_on_all_ranks(lambda: _write_shards(aside, final, shared_out), f'writing {final}')
        files = {name: entry for part in parts for name, entry in sorted(part.items())}
        run_on_all_ranks(lambda: _finish(aside, final, files) if main else None, f'completing {final}')
    except BaseException:
        if main:
            atomic.discard(aside)
        raise
    return final


def sweep(folder: Path) -> list[Path]:
    """Clean up what dead runs left in ``checkpoints/``. ``save`` calls this first."""
    return atomic.sweep(folder, is_complete)


def _begin(final: Path) -> str:
    with disk_errors(final, kept=KEPT):
        sweep(final.parent)
        return str(atomic.make_aside(final))


def _write(aside: Path, final: Path, checkpoint: Checkpoint) -> Files:
    main = collectives.is_main()
    needs = plain.count_bytes(checkpoint.per_rank or {})
    if main:
        needs += plain.count_bytes([checkpoint.model, checkpoint.ema or {}, checkpoint.training])
    if not aside.is_dir():
        raise RunFailure(f'this rank does not see {aside}', 'All ranks need to share the file system of the work dir.')
    files: Files = {}

    def add(name: str, fill: Callable[[Writer], object]) -> None:
        with Writer(aside / name) as writer:
            fill(writer)
        files[name] = {'size': writer.size, 'sha256': writer.sha256}

    with disk_errors(final, needs, KEPT):
        if checkpoint.per_rank is not None:
            add(f'rank_{collectives.rank()}.pt', lambda writer: plain.write_plain(writer, checkpoint.per_rank, 'per_rank'))
        if main:
            add('training.pt', lambda writer: plain.write_plain(writer, checkpoint.training, 'training'))
            add('model.safetensors', lambda writer: tensorfile.write_tensors(writer, checkpoint.model, sealed=False))
            if checkpoint.ema is not None:
                add('ema.safetensors', lambda writer: tensorfile.write_tensors(writer, checkpoint.ema or {}, sealed=False))
            add(runs.CONFIG, lambda writer: writer.write(checkpoint.config_text.encode()))
            if checkpoint.spec is not None:
                add(spec.FILE, lambda writer: writer.write(config_json.pretty(checkpoint.spec).encode()))
            add('meta.json', lambda writer: writer.write(atomic.json_text(_meta(checkpoint)).encode()))
    return files


def _write_shards(aside: Path, final: Path, tensors: Mapping[str, Tensor]) -> Files:
    from vq.io import shard_files

    with disk_errors(final, plain.count_bytes({name: local(value) for name, value in tensors.items()}), KEPT):
        return shard_files.write(aside, tensors)


def _meta(checkpoint: Checkpoint) -> dict[str, Any]:
    meta = {name: getattr(checkpoint, name) for name in (*_META, 'frozen_parts')}
    meta['world_size'] = collectives.size()
    meta['versions'] = {'python': platform.python_version(), 'torch': str(torch.__version__), 'vq': vq.__version__}
    return {'format_version': FORMAT_VERSION, **meta}


def _finish(aside: Path, final: Path, files: Files) -> None:
    with disk_errors(final, kept=KEPT):
        marker = {'format_version': FORMAT_VERSION, 'files': dict(sorted(files.items()))}
        with Writer(aside / MARKER) as writer:
            writer.write(atomic.json_text(marker).encode())
        atomic.commit(aside, final, is_complete)
        atomic.write_text(final.parent / LATEST, f'{final.name}\n')


def load(path: Path, verify: bool = True, rank: int | None = None) -> Checkpoint:
    """Read a checkpoint to the CPU. ``per_rank`` is the state of this rank, if the checkpoint has a file of this rank.

    File sizes are always checked. ``verify`` reads each file an extra time and checks its SHA-256 before its content is
    used. It also checks that the pretrained files of frozen parts are those the checkpoint was saved with.
    """
    place = atomic.standing(path, is_complete)
    if place is None:
        raise not_complete(path)
    marker = read_marker(place)
    assert marker is not None
    version = marker.get('format_version')
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise UserError(
            f'{path} has checkpoint format {version}, and this vq ({vq.__version__}) reads up to {FORMAT_VERSION}',
            'Upgrade vq, or take a checkpoint it wrote.',
        )
    if not is_resumable(place):
        raise UserError(
            f'{path} keeps only weights: the state of its optimizers was deleted (keep_state of the checkpoint callback)',
            'Resume from a newer checkpoint, or start a new run with --load-model-from.',
        )
    own = f'rank_{collectives.rank() if rank is None else rank}.pt'
    if verify:
        verify_files(place, [name for name in marker['files'] if not name.startswith(_EACH) or name == own])
    contents = _read(place, marker['files'], own)
    for step in range(version, FORMAT_VERSION):
        if step not in MIGRATIONS:
            raise UserError(f'{path} has checkpoint format {step}, which is too old', 'Load it with the vq that wrote it.')
        contents = MIGRATIONS[step](contents)
    meta = contents.pop('meta')
    checkpoint = Checkpoint(**contents, **{name: meta[name] for name in _META}, frozen_parts=meta.get('frozen_parts', {}))
    if verify:
        runs.check_frozen(path, checkpoint.frozen)
    return checkpoint


def _read(place: Path, files: Mapping[str, Any], own: str) -> dict[str, Any]:
    config = runs.CONFIG if runs.CONFIG in files else runs.OLD_CONFIG
    for name in ('meta.json', 'model.safetensors', 'training.pt', config):
        if name not in files:
            raise tensorfile.damaged(place / MARKER, f'it does not list {name}')
    try:
        meta = read_json(place / 'meta.json')
        _check_meta(meta)
    except (OSError, ValueError) as error:
        raise tensorfile.damaged(place / 'meta.json', str(error)) from error
    # checksums: the SHA-256 has been compared, unless the caller asked for no check
    training = plain.read_torch(place / 'training.pt', checksums=False)
    if not isinstance(training, dict):
        raise tensorfile.damaged(place / 'training.pt', f'it holds a {type(training).__name__}')
    return {
        'meta': meta,
        'model': tensorfile.read_tensors(place / 'model.safetensors'),
        'ema': tensorfile.read_tensors(place / 'ema.safetensors') if 'ema.safetensors' in files else None,
        'training': training,
        'per_rank': plain.read_torch(place / own, checksums=False) if own in files else None,
        'config_text': config_json.read_text(place / config),
        'spec': spec.read(place / spec.FILE).as_json() if spec.FILE in files else None,
        'shards': place if 'optimizer.json' in files else None,
    }


def _check_meta(meta: Any) -> None:
    if not isinstance(meta, dict):
        raise ValueError(f'it holds a {type(meta).__name__}')
    for name in _META:
        if name not in meta:
            raise ValueError(f"'{name}' is missing")
    sound = {
        **{name: type(meta[name]) is int for name in ('step', 'samples_seen', 'world_size')},
        'seed': meta['seed'] is None or type(meta['seed']) is int,
        **{name: isinstance(meta[name], dict) for name in ('frozen', 'extra', 'versions')},
    }
    for name, holds in sound.items():
        if not holds:
            raise ValueError(f"'{name}' is {meta[name]!r:.60}")
    runs.frozen_entries(meta)


def verify_files(place: Path, names: list[str]) -> dict[str, str]:
    """The SHA-256 of files of a complete checkpoint, compared with its marker."""
    marker = read_marker(place)
    assert marker is not None
    digests = file_digests(place / name for name in names)
    for name in names:
        if digests[place / name] != marker['files'][name].get('sha256'):
            raise tensorfile.damaged(place / name, 'its SHA-256 is not the one recorded when it was written')
    return {name: digests[place / name] for name in names}
