"""Rules that turn the keys of a published state dict into ours. A key that matches no rule is an error.

A rule's source is a key with placeholders: ``encoder.down.{i}.block.{j}.{residual}.{leaf}``. The vocabulary of a
placeholder maps each word it matches to our word. ``i`` and ``j`` match numbers, ``leaf`` weight or bias, ``rest`` anything.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor

from vq.core.errors import UserError

State = Mapping[str, Tensor]
Words = Mapping[str, str]  # word in their keys -> word in ours

_PLACEHOLDER = re.compile(r'\{(\w+)\}')
_PATTERNS = {'i': r'\d+', 'j': r'\d+', 'leaf': 'weight|bias', 'rest': '.*'}


@dataclasses.dataclass(frozen=True)
class Converted:
    """A published model under our names."""

    tokenizer: dict[str, Any]  # its config, for the model registry
    tensors: dict[str, Tensor]  # with the keys of a task: tokenizer.*, discriminator.*
    image_size: int | tuple[int, ...]  # a number is that of a square
    dropped: dict[str, list[str]] = dataclasses.field(default_factory=dict)  # reason -> keys of the file


@dataclasses.dataclass(frozen=True)
class Rule:
    """A key pattern, ``source``, and the keys of its tensor under our names, ``targets``.

    Without a target the tensor is dropped for ``reason``. Several targets get equal parts of its first axis. ``dims`` is
    the number of dimensions to reshape to: 2 turns the weight of a 1x1 convolution into that of a linear layer, 4 does the
    reverse, 1 turns (1, C, 1, 1) into a vector. Of three dimensions, axes of length 1 in front are dropped. Vectors are never
    reshaped.
    """

    source: str
    targets: tuple[str, ...]
    dims: int | None = None
    reason: str = ''


def rename(source: str, target: str, dims: int | None = None) -> Rule:
    return Rule(source, (target,), dims)


def split(source: str, targets: Sequence[str], dims: int | None = None) -> Rule:
    return Rule(source, tuple(targets), dims)


def drop(source: str, reason: str) -> Rule:
    return Rule(source, (), reason=reason)


def map_keys(
    state: State, rules: Iterable[Rule], vocabulary: Mapping[str, Words]
) -> tuple[dict[str, Tensor], dict[str, list[str]]]:
    """Tensors under our names, and the keys that were dropped, by reason. The first rule that matches a key applies."""
    compiled = [(re.compile(_pattern(rule.source, vocabulary)), rule) for rule in rules]
    mapped: dict[str, Tensor] = {}
    origin: dict[str, str] = {}
    dropped: dict[str, list[str]] = {}
    unknown: list[str] = []
    for key, value in state.items():
        match, rule = next(((m, rule) for pattern, rule in compiled if (m := pattern.fullmatch(key))), (None, None))
        if match is None or rule is None:
            unknown.append(key)
            continue
        if not rule.targets:
            dropped.setdefault(rule.reason, []).append(key)
            continue
        words = {name: vocabulary.get(name, {}).get(word, word) for name, word in match.groupdict().items()}
        for target, part in zip(rule.targets, _parts(key, value, rule), strict=True):
            name = target.format(**words)
            if name in mapped:
                raise UserError(f"'{origin[name]}' and '{key}' are both {name}", 'The file is not of that kind.')
            mapped[name], origin[name] = part, key
    if unknown:
        raise UserError(
            f'{len(unknown)} of {len(state)} keys are unknown: {_shown(unknown)}',
            'Is it a file of another kind? --help lists the kinds, and the options that leave parts out.',
        )
    return mapped, dropped


def _pattern(source: str, vocabulary: Mapping[str, Words]) -> str:
    pieces: list[str] = []
    seen: set[str] = set()
    for index, piece in enumerate(_PLACEHOLDER.split(source)):
        if index % 2 == 0:
            pieces.append(re.escape(piece))
        elif piece in seen:
            pieces.append(f'(?P={piece})')
        else:
            seen.add(piece)
            words = '|'.join(map(re.escape, vocabulary[piece])) if piece in vocabulary else _PATTERNS[piece]
            pieces.append(f'(?P<{piece}>{words})')
    return ''.join(pieces)


def _parts(key: str, value: Tensor, rule: Rule) -> list[Tensor]:
    count = len(rule.targets)
    if count > 1 and (value.ndim == 0 or value.shape[0] % count):
        raise UserError(f"'{key}' of shape {tuple(value.shape)} does not divide into {count}", 'The file is damaged.')
    return [_reshaped(key, part, rule.dims) for part in (value.chunk(count) if count > 1 else [value])]


def _reshaped(key: str, value: Tensor, dims: int | None) -> Tensor:
    if dims is None or value.ndim == 1 or value.ndim == dims:
        return value
    if dims == 1 and value.ndim == 4 and value.numel() == value.shape[1]:
        return value.reshape(-1)
    if value.ndim == 3 and dims < 3 and all(length == 1 for length in value.shape[:-dims]):
        return value.reshape(value.shape[-dims:])
    if dims == 4 and value.ndim == 2:
        return value[:, :, None, None]
    if dims == 2 and value.ndim == 4 and value.shape[2:] == (1, 1):
        return value[:, :, 0, 0]
    wanted = 'vector of channels' if dims == 1 else '1x1 convolution'
    raise UserError(f"'{key}' of shape {tuple(value.shape)} is not a {wanted}", 'The file is not of that kind.')


def _shown(keys: Sequence[str], most: int = 8) -> str:
    return ', '.join(keys[:most]) + (f', ... and {len(keys) - most} more' if len(keys) > most else '')
