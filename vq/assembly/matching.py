"""Checks on the meta device whether tensors fit a tokenizer's config, without memory and without random numbers.

The config may come from an untrusted file: it can name registered parts only, is checked against their signatures, and
cannot build more parts than the file has tensors.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from vq.core.check import check_config
from vq.core.errors import UserError
from vq.interfaces import Tokenizer
from vq.interfaces.latents import optional_keys
from vq.interfaces.pretrained import frozen_parts, left_out
from vq.registries import VQModelRegistry

Shapes = Mapping[str, tuple[int, ...]]

PREFIX = 'tokenizer.'
_COUNTS = ('blocks', 'layers', 'depth', 'heads')  # suffixes of parameters that give a number of parts to build
_HINT = 'Convert the file again: python -m vq.tools.convert_checkpoints KIND FILE.'


def fit(config: Mapping[str, Any], shapes: Shapes, where: str) -> Tokenizer:
    """The tokenizer on the meta device, if the tensors below ``tokenizer.`` are exactly those of its state dict. Frozen parts
    have files of their own, so their tensors are not among them.
    """
    own = {key.removeprefix(PREFIX): shape for key, shape in shapes.items() if key.startswith(PREFIX)}
    largest = max((size for shape in own.values() for size in shape), default=0)
    _check_sizes(config, len(own), max(largest, 4096), where)
    try:
        check_config(VQModelRegistry, config, 'tokenizer')
        with torch.device('meta'):
            tokenizer = VQModelRegistry.build(config, 'tokenizer')
    except UserError as error:
        raise UserError(f'{where}: {error.message}', error.hint) from error
    except (RuntimeError, TypeError, ValueError, ArithmeticError, RecursionError) as error:
        raise UserError(f'{where}: its config cannot be built: {error}', _HINT) from error
    if not isinstance(tokenizer, Tokenizer):
        raise UserError(f'{where} describes a {type(tokenizer).__name__}, which is not a tokenizer', _HINT)
    frozen = tuple(prefix for name, part in frozen_parts(tokenizer).items() for prefix in left_out(name, part))
    wanted = {key: tuple(value.shape) for key, value in tokenizer.state_dict().items() if not key.startswith(frozen)}
    for key in optional_keys(tokenizer):
        own.pop(key, None)  # checked when they are loaded
    problems = [
        *(f"'{key}' is missing" for key in wanted if key not in own),
        *(f"'{key}' is not part of it" for key in own if key not in wanted),
        *(f"'{key}' is {own[key]} and {shape} is needed" for key, shape in wanted.items() if key in own and own[key] != shape),
    ]
    if problems:
        more = f', ... and {len(problems) - 4} more' if len(problems) > 4 else ''
        raise UserError(
            f'{where}: {len(problems)} tensors do not fit the tokenizer: {"; ".join(problems[:4])}{more}',
            'The file is damaged, or of an architecture that cannot be converted.',
        )
    return tokenizer


def _check_sizes(value: Any, most: int, largest: int, where: str, name: str = '', depth: int = 0) -> None:
    """Refuse a hostile config with millions of parts or channels: the tensors bound the number of parts and the widths."""
    if depth > 12:
        raise UserError(f'{where}: its config is nested too deep', _HINT)
    if isinstance(value, Mapping):
        for key, item in value.items():
            _check_sizes(item, most, largest, where, str(key), depth + 1)
    elif isinstance(value, list | tuple):
        if len(value) > min(most, 64):
            raise UserError(f"{where}: '{name}' of its config lists {len(value)} entries for {most} tensors", _HINT)
        for item in value:
            _check_sizes(item, most, largest, where, name, depth + 1)
    elif isinstance(value, int) and (abs(value) > largest or (name.endswith(_COUNTS) and value > most)):
        raise UserError(f"{where}: '{name}' of its config is {value}, for a file of {most} tensors", _HINT)
