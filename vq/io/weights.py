"""Weights from safetensors files, old and new torch files, checkpoints and runs, recognised by content, not by name."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vq.core.errors import UserError, listing, nearest
from vq.interfaces.latents import optional_keys
from vq.io import checkpoints, plain, tensorfile
from vq.io.digest import file_digest, read_digest
from vq.io.frozen import check_parts
from vq.io.pretrained import DIGESTS, recorded_digest
from vq.io.runs import Run, Weights, find
from vq.io.sniff import sniff
from vq.io.values import check_values

logger = logging.getLogger('vq')

__all__ = ['LoadReport', 'Source', 'Weights', 'file_digest', 'load_model_from', 'read_weights', 'sniff']

_NESTS = ('state_dict', 'model')  # keys under which training checkpoints of other projects nest the weights
_MOST_NESTS = 8  # one inside the other
_WRAPPERS = ('module.', '_orig_mod.')  # prefixes that DDP and torch.compile add to every key


class Misfit(UserError):
    """Weights of another architecture."""


@dataclasses.dataclass(frozen=True)
class Source:
    """The file that weights were read from."""

    path: Path
    kind: str  # safetensors, torch or torch-legacy
    sha256: str
    part: str | None = None  # of a checkpoint: model or ema

    def __str__(self) -> str:
        return f'{self.path} (sha256 {self.sha256:.12})'


@dataclasses.dataclass
class LoadReport:
    """The result of loading: every key of the model and of the files."""

    sources: list[Source]
    loaded: list[str]
    missing: list[str]  # keys of the model that no file has, and that are neither frozen nor new
    unexpected: list[str]  # keys of the files that the model does not have
    mismatched: list[str]  # 'key: (4, 3) in the file, (8, 3) in the model'
    frozen: list[str] = dataclasses.field(default_factory=list)  # missing, and declared frozen by the model
    new: list[str] = dataclasses.field(default_factory=list)  # missing or of another shape, and declared new by the caller
    collisions: list[str] = dataclasses.field(default_factory=list)  # in several files; the last file won

    def summary(self) -> str:
        """One line for a log."""
        total = len(self.loaded) + len(self.missing) + len(self.mismatched) + len(self.frozen) + len(self.new)
        parts = [f'loaded {len(self.loaded)} of {total} tensors from {", ".join(map(str, self.sources))}']
        for name in ('frozen', 'new', 'missing', 'mismatched', 'unexpected', 'collisions'):
            keys: list[str] = getattr(self, name)
            if keys:
                parts.append(f'{len(keys)} {name} ({_first(keys)})')
        return '; '.join(parts)


def read_weights(name: str | Path | Run, weights: Weights = 'auto') -> tuple[dict[str, Tensor], Source]:
    """The tensors of a file, a checkpoint or a run, on the CPU. ``weights``: which weights of a checkpoint."""
    run = name if isinstance(name, Run) else find(name)
    if run.passed_over:
        logger.warning('%s', run.passed_over)
    file = run.file(weights)
    recorded = run.marker['files'].get(file.name, {}).get('sha256')
    part = None if run.weights == file or run.checkpoint is None else file.stem
    source = Source(file, sniff(file), read_digest(file), part)
    if recorded is not None and source.sha256 != recorded:
        raise tensorfile.damaged(file, 'its SHA-256 is not the one recorded when it was written')
    fetched = recorded_digest(file)
    if fetched is not None and source.sha256 != fetched[0]:
        raise tensorfile.Damaged(
            f'{file} has the SHA-256 {source.sha256:.12}, and {DIGESTS} recorded {fetched[0]:.12} on {fetched[1]}',
            f'Fetch it again: python -m vq.tools.prepare_checkpoints NAME --force. If you replaced it, edit {DIGESTS}.',
        )
    if source.kind == 'safetensors':
        return tensorfile.read_tensors(file), source
    return _unwrap(plain.read_torch(file, mmap=source.kind == 'torch'), file), source


def _unwrap(value: Any, path: Path) -> dict[str, Tensor]:
    for _ in range(_MOST_NESTS):  # a dict can contain itself
        if not isinstance(value, dict) or _is_state(value):
            break
        inner = next((value[name] for name in _NESTS if isinstance(value.get(name), dict)), None)
        if inner is None:
            odd = next(
                (f"'{key}' is a {type(item).__name__}" for key, item in value.items() if not isinstance(item, Tensor)),
                'its keys are not text',
            )
            raise UserError(
                f'{path} is not a state dict: {odd}',
                f'It has: {listing(map(str, value)) or "nothing"}. Save its tensors alone, or under '
                f'{" or ".join(map(repr, _NESTS))}.',
            )
        value = inner
    if not isinstance(value, dict) or not _is_state(value):
        raise UserError(f'{path} holds a {type(value).__name__}, not a state dict', 'Save module.state_dict() instead.')
    return dict(value)


def _is_state(value: Mapping[Any, Any]) -> bool:
    return bool(value) and all(isinstance(key, str) and isinstance(item, Tensor) for key, item in value.items())


def load_model_from(
    module: nn.Module,
    paths: Sequence[str | Path | Run],
    strict: bool = True,
    weights: Weights = 'auto',
    new_prefixes: Iterable[str] = (),
    statistics: bool = True,
) -> LoadReport:
    """Load one or several files into a module; if several files have a key, the last one wins.

    With ``strict`` it is an error if no file has a key of the module, unless the key has one of the prefixes in
    ``module.frozen_prefixes()`` or ``new_prefixes``. A tensor of another shape is always an error, unless its key has one of
    ``new_prefixes``. Keys of the files that the module does not have are only reported. Frozen parts of the module must have
    the weights of the training of each checkpoint: see ``vq/io/frozen.py``.

    Statistics of latents are taken if the files have them, and dropped if not; without ``statistics`` always dropped.
    """
    if any(value.is_meta for value in module.state_dict().values()):
        raise ValueError('the module is on the meta device: allocate it (to_empty) before loading weights')
    report, matching = compare(module, paths, strict, weights, new_prefixes)
    if not statistics:
        matching = {key: value for key, value in matching.items() if key not in optional_keys(module)}
    check_values(matching, {**matching, **module.state_dict()}, ', '.join(str(source.path) for source in report.sources))
    for path in paths:
        run = path if isinstance(path, Run) else find(path)
        check_parts(run.weights, *run.frozen, module)
    module.load_state_dict(matching, strict=False)
    return report


def compare(
    module: nn.Module,
    paths: Sequence[str | Path | Run],
    strict: bool = True,
    weights: Weights = 'auto',
    new_prefixes: Iterable[str] = (),
) -> tuple[LoadReport, dict[str, Tensor]]:
    """The report of ``load_model_from``, and the tensors to load. The module is not changed; it can be on the meta device."""
    target: dict[str, Tensor] = module.state_dict()
    frozen = checkpoints.frozen_prefixes(module)
    fresh, optional = tuple(new_prefixes), optional_keys(module)
    report = LoadReport([], [], [], [], [])
    merged: dict[str, Tensor] = {}
    for path in paths:
        tensors, source = read_weights(path, weights)
        tensors = _bare(tensors, target)
        report.sources.append(source)
        report.collisions += [key for key in tensors if key in merged]
        merged.update(tensors)
    matching = {
        key: value for key, value in merged.items() if key in optional or (key in target and value.shape == target[key].shape)
    }
    report.loaded = list(matching)
    report.unexpected = [key for key in merged if key not in target and key not in optional]
    tied = {_place(target[key]) for key in matching if key in target and target[key].numel()}
    for key in target:
        if key in matching or key in optional:
            continue
        if key in merged:
            shapes = f'{key}: {tuple(merged[key].shape)} in the file, {tuple(target[key].shape)} in the model'
            (report.new if checkpoints.stands_under(key, fresh) else report.mismatched).append(
                key if checkpoints.stands_under(key, fresh) else shapes
            )
        elif target[key].numel() and _place(target[key]) in tied:
            report.loaded.append(key)  # a tied tensor, loaded under its other name
        elif checkpoints.stands_under(key, frozen):
            report.frozen.append(key)
        elif checkpoints.stands_under(key, fresh):
            report.new.append(key)
        else:
            report.missing.append(key)
    if report.mismatched or (strict and report.missing) or (target and not matching):
        raise _misfit(report, len(target))
    return report, matching


def _place(value: Tensor) -> tuple[int, int]:
    """Equal for tied tensors, also on the meta device."""
    return value.untyped_storage()._cdata, int(value.storage_offset())


def _bare(tensors: dict[str, Tensor], target: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Remove the prefix that a wrapper added to every key, unless the module has keys with that prefix."""
    for wrapper in _WRAPPERS:
        if tensors and all(key.startswith(wrapper) for key in tensors) and not any(key.startswith(wrapper) for key in target):
            tensors = {key.removeprefix(wrapper): value for key, value in tensors.items()}
    return tensors


def _misfit(report: LoadReport, total: int) -> Misfit:
    files = ', '.join(str(source.path) for source in report.sources) or 'no file'
    another = bool(report.mismatched) or 2 * len(report.loaded) < total - len(report.frozen)
    lines = [
        f'{files}: checkpoint of another architecture; {len(report.loaded)} of {total} tensors fit'
        if another
        else f'{files}: {len(report.missing)} of {total} tensors of the model are missing'
    ]
    if report.mismatched:
        lines.append(f'{len(report.mismatched)} of another shape: {_first(report.mismatched)}')
    if report.missing:
        near = nearest(report.missing[0], report.unexpected)
        lines.append(f'{len(report.missing)} missing: {_first(report.missing)}{near}')
    if report.unexpected:
        lines.append(f'{len(report.unexpected)} unexpected: {_first(report.unexpected)}')
    return Misfit(
        '\n  '.join(lines),
        'Use the config these weights were trained with. strict=False accepts missing keys, not other shapes.',
    )


def _first(keys: Sequence[str], most: int = 3) -> str:
    return ', '.join(keys[:most]) + (', ...' if len(keys) > most else '')


def state_hash(module: nn.Module, without: tuple[str, ...] = ()) -> str:
    """A short hash of all parameters and buffers, except those whose keys begin with one of ``without``."""
    state, total = module.state_dict(), hashlib.sha256()
    for key in sorted(key for key in state if not key.startswith(without)):
        total.update(key.encode())
        total.update(state[key].detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return total.hexdigest()[:16]
