"""Files of other projects: tensors, and what else they happen to carry, without running anything of it.

A training checkpoint names classes besides its tensors: callbacks, settings, scores. Names on a list are read as inert
stand-ins that only keep what the file says of them; the classes themselves are never imported. Any other name refuses
the file.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from vq.core.errors import UserError, listing
from vq.io import plain, tensorfile
from vq.io.weights import sniff

# full names of globals, as regular expressions
HARMLESS = (
    r'pytorch_lightning\..+',
    r'lightning(_fabric|_utilities)?\..+',
    r'omegaconf\..+',
    r'argparse\.Namespace',
    r'pathlib\.(Pure)?(Posix|Windows)?Path',
    r'typing\.Any',
    r'collections\.defaultdict',
    r'(builtins|__builtin__)\.(bool|dict|float|int|list|str|tuple)',
    r'numpy\.dtype',
    r'numpy\.(core|_core)\.multiarray\.scalar',
)


class StandIn:
    """An object of the file, of a class that was not loaded: how it was made, its state, and its items."""

    origin: ClassVar[str] = ''  # the full name of the class
    args: tuple[Any, ...]
    state: Any
    items: dict[Any, Any]

    def __new__(cls, *args: Any) -> Self:
        self = super().__new__(cls)
        self.args, self.state, self.items = args, None, {}
        return self

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        self.items[key] = value

    def values(self) -> list[Any]:
        """All that it was given, whichever way."""
        states = self.state if isinstance(self.state, tuple) else (self.state,)
        named = [value for state in states if isinstance(state, dict) for value in state.values()]
        return [*self.args, *named, *self.items.values()]


def read_published(path: Path, harmless: Sequence[str] = HARMLESS) -> Any:
    """What a safetensors or torch file holds, on the CPU."""
    if not path.is_file():
        there = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        raise UserError(f'there is no file {path}', f'In {path.parent}: {listing(there) or "nothing"}.')
    kind = sniff(path)
    if kind == 'safetensors':
        return tensorfile.read_tensors(path)
    names = _foreign_names(path) if kind == 'torch' else []
    refused = [name for name in names if not any(re.fullmatch(pattern, name) for pattern in harmless)]
    if refused:
        raise UserError(
            f'{path} is refused: it asks for {listing(refused)}, and loading these could run code',
            'Where you trust the file, save its tensors alone: torch.save(state_dict, FILE).',
        )
    with torch.serialization.safe_globals([(_stand_in(name), name) for name in names]):
        return plain.read_torch(path, mmap=kind == 'torch')


def read_state(path: Path, nests: Sequence[str]) -> dict[str, Tensor]:
    """The state dict of a file, bare or under one of ``nests``; what else the file carries is left."""
    value = read_published(path)
    nested = next((value[name] for name in nests if isinstance(value, dict) and isinstance(value.get(name), dict)), value)
    if not isinstance(nested, dict) or not nested:
        raise UserError(f'{path} holds a {type(value).__name__}, not a state dict', _nest_hint(value, nests))
    odd = next((key for key, item in nested.items() if not isinstance(key, str) or not isinstance(item, Tensor)), None)
    if odd is not None:
        raise UserError(
            f"{path} is not a state dict: '{odd!s:.60}' is a {type(nested[odd]).__name__}", _nest_hint(value, nests)
        )
    return {key: item.detach() for key, item in nested.items()}


def _nest_hint(value: Any, nests: Sequence[str]) -> str:
    there = f' It has: {listing(map(str, value))}.' if isinstance(value, dict) and value else ''
    return f'The tensors are to be at its top, or under {" or ".join(map(repr, nests))}.{there}'


def _foreign_names(path: Path) -> list[str]:
    """The globals a torch file names that torch itself does not rebuild tensors with."""
    try:
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(str(path)))
    except (pickle.UnpicklingError, EOFError, UnicodeError, AssertionError, IndexError) as error:
        raise UserError(
            f'{path} is refused: its contents cannot be judged ({error})',
            'It was not written by torch.save with its usual settings. Save its tensors alone, where you trust it.',
        ) from error
    except (RuntimeError, ValueError) as error:
        raise tensorfile.damaged(path, str(error).splitlines()[0] if str(error) else type(error).__name__) from error


def _stand_in(name: str) -> type[StandIn]:
    return type('StandIn', (StandIn,), {'origin': name})
