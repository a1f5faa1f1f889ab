"""``KEY=VALUE``, ``KEY:EXPR`` and ``KEY::TEXT`` on command lines, behind a flag or as bare words after CONFIG.

The first of ``:`` and ``=`` outside of brackets splits. The value after ``=`` is a Python literal, else text; after ``:`` it
is a Python expression (todd's form), after ``::`` text as it stands.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_PAIR = re.compile(r"""(?P<key>(?:\[[^\[\]]*\]|[^\[\]:='"])*)(?P<sign>::|:|=)(?P<value>.*)""", re.DOTALL)
_OPTION = re.compile(r'[A-Za-z_]\w*(\.[A-Za-z_]\w*)*\s*')  # option, side.option
_PATH = re.compile(r'(\.[A-Za-z_]\w*|\[[^\[\]]*\])+\s*')
_OPENED, _CLOSED = '([{', ')]}'
_CALL = re.compile(r'[A-Za-z_][\w.]*\(.*\)', re.DOTALL)
FILES = ('load_model_from', 'load_from')  # flags that take a list of files
QUOTE = "Quote the word, because shells change brackets, braces and spaces: '.trainer.callbacks[-1].interval=50'."


class DictAction(argparse.Action):
    """Pairs of a flag, in a dict; repeated flags add up.

    Todd's own class is not used: importing todd is too slow for ``--help``, and its class forgets earlier flags and fails
    on a pair without a colon.
    """

    def __init__(self, option_strings: Sequence[str], dest: str, **settings: Any) -> None:
        super().__init__(option_strings, dest, nargs='*', default={}, metavar='KEY=VALUE', **settings)

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option_string: str | None = None
    ) -> None:
        pairs = dict(getattr(namespace, self.dest) or {})
        for word in values:
            try:
                key, value = read_pair(word)
            except ValueError as error:
                parser.error(f'{option_string}: {error}')
            pairs[key] = value
        setattr(namespace, self.dest, pairs)


def read_pair(word: str) -> tuple[str, Any]:
    """Key and value of a word; ValueError with a message for the user if it is no pair."""
    match = _PAIR.fullmatch(word)
    if match is None or not match['key'].strip():
        raise ValueError(f"'{word}' is neither KEY=VALUE, KEY:EXPR nor KEY::TEXT{_why(word)}")
    key, sign, value = match['key'].strip(), match['sign'], match['value']
    if sign == '::':
        return key, value
    if sign == '=':
        return key, read_value(key, value)
    try:
        return key, eval(value, {})
    except Exception as error:
        why = f"'{value}' is not a Python expression ({type(error).__name__}: {error})"
        raise ValueError(f'{why}; for text write {key}::{value}{_why(value)}') from None


def read_value(key: str, text: str) -> Any:
    """The value after ``=``: a Python literal, else text. What can be neither on purpose is refused."""
    with contextlib.suppress(ValueError, SyntaxError, MemoryError, RecursionError):
        return ast.literal_eval(text.strip())
    if _open_brackets(text):
        raise ValueError(f"'{key}={text}' has brackets that do not match. {QUOTE}")
    if text.startswith('='):
        raise ValueError(f"'{key}={text}' has two equal signs; write {key}={text.lstrip('=')}")
    if text[:1] in ('[', '{', '(') or _CALL.fullmatch(text):
        raise ValueError(f"'{text}' is not a Python literal; for an expression write '{key}:{text}', for text '{key}::{text}'")
    return text


def _open_brackets(text: str) -> bool:
    """Whether ``text`` opens a bracket that it does not close, or the reverse: a shell has split it at a space."""
    depth = 0
    for letter in re.sub(r"'[^']*'|\"[^\"]*\"", '', text):
        depth += (letter in _OPENED) - (letter in _CLOSED)
        if depth < 0:
            return True
    return depth > 0 and text[:1] in _OPENED


def _why(word: str) -> str:
    """What probably happened to a word that cannot be read."""
    if word.startswith('.') and _PATH.fullmatch(word):
        return f'; a value is missing: {word}=VALUE'
    if word.endswith('.py'):
        return '; NAME and CONFIG stand before this flag'
    if Path(word).exists():
        return f'; it is a file, so a shell may have replaced a pattern by it. {QUOTE}'
    if any(letter in word for letter in '[](){}'):
        return f'; a shell may have changed it. {QUOTE}'
    return ''


def is_pair(word: str) -> str:
    """The flag that a bare word stands for: ``--config-options``, ``--override`` or, if it is no pair, the empty string."""
    match = _PAIR.fullmatch(word)
    if match is None or Path(word).exists():
        return ''
    if _OPTION.fullmatch(match['key']):
        return '--config-options'
    return '--override' if match['key'].startswith('.') and '/' not in match['key'] else ''


def is_pair_after_files(word: str) -> bool:
    """Whether a word behind a list of files is a pair: it is no file that is there, and its sign is = or ::."""
    match = _PAIR.fullmatch(word)
    return match is not None and match['sign'] != ':' and '/' not in match['key'] and bool(is_pair(word))


def with_flags(parser: argparse.ArgumentParser, words: Sequence[str]) -> list[str]:
    """``NAME CONFIG k=v .a.b=1`` -> ``NAME CONFIG --config-options=k=v --override=.a.b=1``.

    The first positional word is never a pair: a run may be called ``lr=0.1``. Words that belong to a flag before them stay,
    but a pair ends a list of files: ``--load-model-from F k=v``.
    """
    flags = parser._option_string_actions
    found: list[str] = []
    left, positional = 0.0, 0  # words that belong to the last flag; positional words so far
    files = 0  # of the last flag, if it takes a list of them
    for place, word in enumerate(words):
        if word == '--':
            return [*found, *words[place:]]
        if word.startswith('-') and not re.match(r'-\.?\d', word) and len(word) > 1:
            name = word.partition('=')[0]
            action = flags.get(name) or next((flags[flag] for flag in flags if flag.startswith(name)), None)
            left = 0 if '=' in word or action is None else words_of(action)
            files = 1 if action is not None and action.dest in FILES else 0
        elif left and not (files > 1 and is_pair_after_files(word)):
            left, files = left - 1, files + bool(files)
        else:
            left, files, positional = 0.0, 0, positional + 1
            flag = is_pair(word) if positional > 1 else ''
            found.append(f'{flag}={word}' if flag else word)
            continue
        found.append(word)
    return found


def words_of(action: argparse.Action) -> float:
    """How many words may follow a flag."""
    if action.nargs in ('+', '*', argparse.REMAINDER):
        return math.inf
    return action.nargs if isinstance(action.nargs, int) else 1
