"""Files of other projects: tensors, and the objects around them, without running code of the file.

A training checkpoint names classes besides its tensors: callbacks, settings, scores. Classes on a list are read as inert
stand-ins that keep arguments, state and items. The classes themselves are never imported. A file that names any other class
is refused.
"""

from __future__ import annotations

import collections
import pickle
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from vq.core.errors import UserError, listing
from vq.io import plain, tensorfile
from vq.io.published.pickled_items import classes_with_items
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
    """An object of the file, of a class that was not imported: the arguments it was made with, and its state."""

    origin: ClassVar[str] = ''  # the full name of the class
    args: tuple[Any, ...]
    state: Any

    def __new__(cls, *args: Any) -> Self:
        self = super().__new__(cls)
        self.args, self.state = args, None
        return self

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def values(self) -> list[Any]:
        """Arguments and state."""
        states = self.state if isinstance(self.state, tuple) else (self.state,)
        named = [value for state in states if isinstance(state, dict) for value in state.values()]
        return [*self.args, *named]


class DictStandIn(StandIn):
    """Makes an object of a dict subclass: an OrderedDict of its items. Its state becomes attributes of the OrderedDict."""

    def __new__(cls, *args: Any) -> Any:
        return collections.OrderedDict()


def read_published(path: Path, harmless: Sequence[str] = HARMLESS) -> Any:
    """The content of a safetensors or torch file, on the CPU."""
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
            f'{path} is refused: it refers to {listing(refused)}, and loading these could run code',
            'If you trust the file, save its tensors alone: torch.save(state_dict, FILE).',
        )
    with torch.serialization.safe_globals([*_stand_ins(path, names)]):
        return plain.read_torch(path, mmap=kind == 'torch')


def read_state(path: Path, nests: Sequence[str]) -> dict[str, Tensor]:
    """The state dict of a file, at the top level or under one of the keys ``nests``. Other content is ignored."""
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
    return f'The tensors must be at the top level, or under {" or ".join(map(repr, nests))}.{there}'


def _foreign_names(path: Path) -> list[str]:
    """The globals in a torch file that torch itself does not allow."""
    try:
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(str(path)))
    except (pickle.UnpicklingError, EOFError, UnicodeError, AssertionError, IndexError, AttributeError, TypeError) as error:
        raise UserError(
            f'{path} is refused: its contents cannot be checked ({error})',
            'torch.save with default settings did not write it. If you trust the file, save its tensors alone.',
        ) from error
    except (RuntimeError, ValueError, MemoryError, OverflowError, KeyError) as error:
        raise tensorfile.damaged(path, str(error).splitlines()[0] if str(error) else type(error).__name__) from error


def _stand_ins(path: Path, names: Sequence[str]) -> Iterator[tuple[type[StandIn], str]]:
    try:
        with_items = classes_with_items(path) if names else set()
    except plain.DAMAGE as error:
        raise tensorfile.damaged(path, str(error).splitlines()[0] if str(error) else type(error).__name__) from error
    for name in names:
        base = DictStandIn if name in with_items else StandIn
        yield type(base.__name__, (base,), {'origin': name}), name
