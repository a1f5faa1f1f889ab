"""Classes as people write them: by name or by number."""

from __future__ import annotations

import operator
import re
import unicodedata
from collections.abc import Sequence

from vq.core.errors import UserError, nearest

SHOWN = 20  # class names that an error lists


def class_numbers(asked: Sequence[str | int], names: Sequence[str], count: int | None, source: str) -> list[int]:
    """The number of each class in ``asked``.

    A word is a name if a class has this name, otherwise a number. So of classes that are named by numbers, ``3`` is the class
    with the name 3. Case and Unicode form do not matter where only one class fits. An ``int`` is always a number.

    names: by number; () if classes have no names. count: number of classes; 0: none; None: unknown, nothing is checked.
    source: what has these classes, for messages.
    """
    if count == 0 and asked:
        raise UserError(f'{source} has no classes, so it cannot draw images of {asked[0]}', 'Leave classes out.')
    return [_number(word, names, count, source) for word in asked]


def _number(word: str | int, names: Sequence[str], count: int | None, source: str) -> int:
    if isinstance(word, str):
        if (found := _named(word, names)) is not None:
            return found
        if not re.fullmatch(r'-?[0-9]{1,12}', word):
            why = nearest(word, names) if names else ': its classes have no names'
            raise UserError(f"{source} has no class '{word}'{why}", _classes(names, count))
        number = int(word)
    else:
        number = operator.index(word)  # also of numpy and torch
    if count is not None and not 0 <= number < count:
        raise UserError(f'{source} has no class {number}: it has {count}', _classes(names, count))
    return number


def _named(word: str, names: Sequence[str]) -> int | None:
    """The class of this name: written the same, else the only one that differs in case or Unicode form."""
    if word in names:
        return names.index(word)
    alike = [number for number, name in enumerate(names) if _folded(name) == _folded(word)]
    return alike[0] if len(alike) == 1 else None


def _folded(name: str) -> str:
    return unicodedata.normalize('NFC', unicodedata.normalize('NFC', name).casefold())


def _classes(names: Sequence[str], count: int | None) -> str:
    numbers = '' if count is None else f'numbers from 0 to {count - 1}'
    if not names:
        return f'Give {numbers or "numbers"}.'
    shown = ', '.join(names[:SHOWN]) + (f', ... ({len(names)} in all)' if len(names) > SHOWN else '')
    return f'Its classes: {shown}; {numbers or "or numbers"}.'
