"""Tensors of TorchScript archives. The program in an archive is neither compiled nor run, and nothing is unpickled.

An archive is a zip file with the folders ``code/`` (the program), ``data/`` (one record of bytes per storage) and the pickle
``data.pkl``: the tree of modules, with their attributes. ``torch.jit.load`` runs the program's ``__setstate__``, which can
write files. Here the opcodes of the pickle are followed on a stack of plain values: objects are their attributes, and the one
function that is known builds a tensor from a record. Every other function and class is left out, with what it would give.
"""

from __future__ import annotations

import pickletools
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vq.core.errors import UserError
from vq.io import bounds

CONSTANTS, TREE, STORAGES = 'constants.pkl', 'data.pkl', 'data/'
REBUILD = 'torch._utils._rebuild_tensor_v2'
MOST = 1_000_000  # attributes of all modules; one module under two names has its attributes twice
_DTYPES = {
    f'{name}Storage': dtype
    for name, dtype in (
        ('Double', torch.float64),
        ('Float', torch.float32),
        ('Half', torch.float16),
        ('BFloat16', torch.bfloat16),
        ('Long', torch.int64),
        ('Int', torch.int32),
        ('Short', torch.int16),
        ('Char', torch.int8),
        ('Byte', torch.uint8),
        ('Bool', torch.bool),
    )
}
_MARK = object()


class Named(str):
    """A class or function, by its full name. It is never imported."""


class Module(dict[str, Any]):
    """An object: its attributes. Empty if it has code of its own for its state, because then they have no names."""


def is_archive(path: Path) -> bool:
    """Whether a zip file is a TorchScript archive: ``torch.save`` writes no constants."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.partition('/')[2] == CONSTANTS for name in archive.namelist())


def read_archive(path: Path) -> dict[str, Tensor]:
    """The tensors that are attributes of modules, parameters and buffers among them, by the names of ``state_dict``."""
    with zipfile.ZipFile(path) as archive:
        top = next(name.partition('/')[0] for name in archive.namelist() if name.partition('/')[2] == CONSTANTS)
        if f'{top}/byteorder' in archive.namelist() and archive.read(f'{top}/byteorder') != b'little':
            raise UserError(f'{path} has big-endian tensors', 'Save its state dict on this machine.')
        tree = _Reader(archive, top).follow(archive.read(f'{top}/{TREE}'))
    found: dict[str, Tensor] = {}
    left, seen = [('', tree, 0)], 0
    while left:
        prefix, module, depth = left.pop()
        if depth > bounds.DEEPEST or seen > MOST:
            raise UserError(f'{path} is refused: its modules contain each other', 'Save its state dict alone.')
        for name, value in module.items() if isinstance(module, Module) else ():
            seen += 1
            if isinstance(value, Tensor):
                found[prefix + name] = value
            elif isinstance(value, Module):
                left.append((f'{prefix}{name}.', value, depth + 1))
    return found


class _Reader:
    """The stack of an unpickler, without its power to import and to call."""

    def __init__(self, archive: zipfile.ZipFile, top: str) -> None:
        self.archive, self.top = archive, top
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.storages: dict[tuple[str, str], Tensor] = {}

    def follow(self, pickled: bytes) -> Any:
        for opcode, argument, _ in pickletools.genops(pickled):
            step = getattr(self, f'_{opcode.name.lower()}', None)
            if step is not None:
                step(argument)
            elif opcode.name not in ('PROTO', 'STOP', 'FRAME'):
                raise ValueError(f'the opcode {opcode.name} is none of TorchScript')
        return self.stack.pop()

    # values

    def _push(self, value: Any) -> None:
        self.stack.append(value)

    _binint = _binint1 = _binint2 = _long1 = _binfloat = _binunicode = _short_binstring = _binstring = _push

    def _none(self, _: None) -> None:
        self.stack.append(None)

    def _newtrue(self, _: None) -> None:
        self.stack.append(True)

    def _newfalse(self, _: None) -> None:
        self.stack.append(False)

    def _global(self, name: str) -> None:
        self.stack.append(Named(name.replace(' ', '.')))

    # containers

    def _mark(self, _: None) -> None:
        self.stack.append(_MARK)

    def _marked(self) -> list[Any]:
        """The values since the last mark, which are taken off the stack."""
        place = len(self.stack) - 1
        while self.stack[place] is not _MARK:
            place -= 1
        values = self.stack[place + 1 :]
        del self.stack[place:]
        return values

    def _gather(self, count: int) -> None:
        if len(self.stack) < count:
            raise ValueError('the stack is empty')
        values = tuple(self.stack[len(self.stack) - count :])
        del self.stack[len(self.stack) - count :]
        self.stack.append(values)

    def _empty_tuple(self, _: None) -> None:
        self._gather(0)

    def _tuple1(self, _: None) -> None:
        self._gather(1)

    def _tuple2(self, _: None) -> None:
        self._gather(2)

    def _tuple3(self, _: None) -> None:
        self._gather(3)

    def _tuple(self, _: None) -> None:
        self.stack.append(tuple(self._marked()))

    def _empty_list(self, _: None) -> None:
        self.stack.append([])

    def _append(self, _: None) -> None:
        self.stack.pop()  # no attribute of a module is a list of named tensors

    def _appends(self, _: None) -> None:
        self._marked()

    def _empty_dict(self, _: None) -> None:
        self.stack.append({})

    def _setitem(self, _: None) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._set([key, value])

    def _setitems(self, _: None) -> None:
        self._set(self._marked())

    def _set(self, flat: list[Any]) -> None:
        items = dict(zip(flat[::2], flat[1::2], strict=True))
        if isinstance(self.stack[-1], dict):  # others are objects of functions that are left out
            self.stack[-1].update(items)

    # memory

    def _binput(self, place: int) -> None:
        self.memo[place] = self.stack[-1]

    def _binget(self, place: int) -> None:
        self.stack.append(self.memo[place])

    _long_binput, _long_binget = _binput, _binget

    # objects and tensors

    def _newobj(self, _: None) -> None:
        del self.stack[-2:]  # the class and its empty arguments
        self.stack.append(Module())

    def _build(self, _: None) -> None:
        state = self.stack.pop()
        if isinstance(state, dict) and isinstance(self.stack[-1], Module):
            self.stack[-1].update({str(name): value for name, value in state.items()})

    def _binpersid(self, _: None) -> None:
        kind, dtype, key, _, _ = self.stack.pop()
        if kind != 'storage':
            raise ValueError(f'{kind} is no storage')
        self.stack.append((str(dtype).removeprefix('torch.'), str(key)))

    def _reduce(self, _: None) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        if not isinstance(function, Named):
            raise ValueError('what is called is no function')
        if function == REBUILD:
            self.stack.append(self._tensor(*arguments[:4]))
        elif function.startswith('torch._utils.'):
            raise UserError(
                f'{self.archive.filename} is refused: it holds a tensor of a kind that is not read ({function})',
                'Save its state dict alone, with plain tensors.',
            )
        else:
            self.stack.append(None)

    def _tensor(self, place: tuple[str, str], offset: int, size: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
        if place not in self.storages:
            name, key = place
            data = self.archive.read(f'{self.top}/{STORAGES}{key}')
            dtype = _DTYPES[name]
            self.storages[place] = torch.frombuffer(bytearray(data), dtype=dtype) if data else torch.empty(0, dtype=dtype)
        return self.storages[place].as_strided(size, stride, offset)  # torch checks that it lies inside
