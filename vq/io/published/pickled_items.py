"""The classes in a pickle whose objects have items (subclasses of dict), found by its opcodes, without unpickling.

torch's weights-only unpickler sets items only on dict, OrderedDict and Counter. So the reader must choose the stand-in for
such a class before it reads the file.
"""

from __future__ import annotations

import pickletools
import zipfile
from pathlib import Path
from typing import Any

MARK = '('  # a mark on the simulated stack
OTHER = ''  # any object without a named class


def classes_with_items(path: Path) -> set[str]:
    """Full names of these classes in a zip file of ``torch.save``."""
    with zipfile.ZipFile(path) as archive:
        (member,) = (name for name in archive.namelist() if name.rpartition('/')[2] == 'data.pkl')
        return _simulate(archive.read(member))


def _simulate(pickled: bytes) -> set[str]:
    """Follow the stack of the unpickler, with the name of the class in place of each object."""
    found: set[str] = set()
    stack: list[str] = []
    memo: dict[int, str] = {}
    for opcode, argument, _ in pickletools.genops(pickled):
        key: Any = argument
        before = [item.name for item in opcode.stack_before]
        if opcode.name == 'GLOBAL':
            stack.append(str(key).replace(' ', '.'))
        elif opcode.name in ('PUT', 'BINPUT', 'LONG_BINPUT'):
            memo[key] = stack[-1]
        elif opcode.name == 'MEMOIZE':
            memo[len(memo)] = stack[-1]
        elif opcode.name in ('GET', 'BINGET', 'LONG_BINGET'):
            stack.append(memo[key])
        elif opcode.name in ('REDUCE', 'NEWOBJ', 'BUILD', 'APPEND'):
            stack.pop()  # arguments, state or item; the class below them now stands for its object
        elif opcode.name == 'SETITEM':
            del stack[-2:]
            found.add(stack[-1])
        elif 'mark' in before:
            while stack.pop() != MARK:
                pass
            if opcode.name == 'SETITEMS':
                found.add(stack[-1])
            elif opcode.name not in ('APPENDS', 'ADDITEMS', 'POP_MARK'):  # these keep the object below; others push one
                stack.append(OTHER)
        else:
            del stack[len(stack) - len(before) :]
            stack.extend(MARK if item.name == 'mark' else OTHER for item in opcode.stack_after)
    return found - {OTHER}
