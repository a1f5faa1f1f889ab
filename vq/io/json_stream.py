"""Large JSON files, entry by entry: the memory is that of one entry, not that of the file.

Annotation files have up to some gigabytes, and a hundred times as many Python objects as are needed of them.
"""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from vq.core.errors import UserError
from vq.core.reading import open_regular

WINDOW = 2**20  # characters that are read at once
LARGEST = 2**26  # characters of one entry
SPACE = re.compile(r'[ \t\n\r]*')
AGAIN = 'Copy the file again.'

Found = TypeVar('Found')


def entries(path: Path, largest: int = 2**33) -> Iterator[tuple[str, Any]]:
    """(key, entry) of every entry of every list in the object that the file holds; (key, value) of what is no list.

    ``UserError`` for anything else than a JSON object, at the place where that turns out.
    """
    return _read(path, _Window.entries, 'object', largest, AGAIN)


def keys(path: Path, advice: str = AGAIN) -> Iterator[str]:
    """The keys of the object that the file holds, in order. Its values are read over."""
    return _read(path, _Window.keys, 'object', 2**36, advice)


def elements(path: Path, advice: str = AGAIN) -> Iterator[Any]:
    """The elements of the array that the file holds."""
    return _read(path, _Window.elements, 'array', 2**36, advice)


def _read(path: Path, walk: Callable[[_Window], Iterator[Found]], kind: str, largest: int, advice: str) -> Iterator[Found]:
    try:
        with open_regular(path) as raw:
            if (size := os.fstat(raw.fileno()).st_size) > largest:
                raise ValueError(f'it has {size:,} bytes, and at most {largest:,} are read')
            window = _Window(io.TextIOWrapper(raw, 'utf-8-sig'))
            yield from walk(window)
            if window.peek():
                raise ValueError(f'there is more after its end, at character {window.before + window.place:,}')
    except OSError as error:
        raise UserError(f'{path} cannot be read: {error.strerror or error}', advice) from error
    except RecursionError as error:
        raise UserError(f'{path} is refused: it is nested too deeply', advice) from error
    except ValueError as error:  # json and unicode errors too
        raise UserError(f'{path} is not a JSON {kind}: {error}', advice) from error


class _Window:
    """The part of a text that is in memory."""

    def __init__(self, file: io.TextIOWrapper) -> None:
        self.file, self.text, self.place, self.ended = file, '', 0, False
        self.before = 0  # characters before ``text``
        self.decoder = json.JSONDecoder()

    def entries(self) -> Iterator[tuple[str, Any]]:
        seen: set[str] = set()
        for key in self._keys():
            if key in seen:
                raise ValueError(f'the key {key!r:.40} is there twice')
            seen.add(key)
            if self.peek() == '[':
                yield from ((key, entry) for entry in self.elements())
            else:
                yield key, self.value()

    def keys(self) -> Iterator[str]:
        for key in self._keys():
            self.value()
            yield key

    def elements(self) -> Iterator[Any]:
        self.expect('[')
        first = True
        while self.goes_on(']', not first):
            yield self.value()
            first = False

    def _keys(self) -> Iterator[str]:
        """The keys of an object; who takes one reads on from its value to the end of it."""
        self.expect('{')
        first = True
        while self.goes_on('}', not first):
            key = self.value()
            if not isinstance(key, str):
                raise ValueError('a key is no text')
            self.expect(':')
            yield key
            first = False

    def read(self) -> None:
        """Let go of what has been read, and read on: as much as is left, at least a window."""
        self.before += self.place
        self.text, self.place = self.text[self.place :], 0
        more = self.file.read(max(WINDOW, len(self.text)))
        self.ended = not more
        self.text += more

    def peek(self) -> str:
        """The next character that is no space; '' at the end."""
        while True:
            found = SPACE.match(self.text, self.place)
            self.place = found.end() if found else self.place
            if self.place < len(self.text) or self.ended:
                return self.text[self.place : self.place + 1]
            self.read()

    def expect(self, marks: str) -> str:
        """The next character, which must be one of ``marks``."""
        mark = self.peek()
        if not mark or mark not in marks:
            wanted = ' or '.join(marks)
            raise ValueError(f'{wanted} is needed at character {self.before + self.place:,}, and there is {mark or "the end"}')
        self.place += 1
        return mark

    def goes_on(self, end: str, separated: bool) -> bool:
        """Whether another entry follows, and not the ``end``. ``separated``: after a comma."""
        if self.peek() == end:
            self.place += 1
            return False
        if separated:
            self.expect(f',{end}')
        return True

    def value(self) -> Any:
        """The next value, whole: one that ends where the window ends can go on after it."""
        self.peek()
        while True:
            try:
                value, end = self.decoder.raw_decode(self.text, self.place)
                if self.ended or (end < len(self.text) and self.text[end] not in '.eE'):  # 1. can be the beginning of 1.5
                    self.place = end
                    return value
            except json.JSONDecodeError as error:
                if self.ended:
                    raise ValueError(f'{error.msg} at character {self.before + error.pos:,}') from error
            if len(self.text) - self.place > LARGEST:
                raise ValueError(f'the entry at character {self.before + self.place:,} has no end within {LARGEST:,}')
            self.read()
