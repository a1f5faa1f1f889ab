"""Composed configs as strict JSON, the form in run folders and checkpoints. Reading a file executes nothing.

Types that JSON lacks are written as an object with one key that begins with ``!``:

    (1, 2)          {"!tuple": [1, 2]}          float('inf')    {"!float": "inf"}
    {1, 2}          {"!set": [1, 2]}            1 + 2j          {"!complex": [1.0, 2.0]}
    frozenset({1})  {"!frozenset": [1]}         b'ab'           {"!bytes": "ab"}      (latin-1)
    {1: 'one'}      {"!dict": [[1, "one"]]}     so is any dict with a key that is not a string or begins with ``!``
    '\\ud800'        {"!text": [55296]}           strings that UTF-8 cannot encode

Keys keep their order, because parts are built in this order.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vq.core.errors import ConfigError
from vq.core.reading import read_bytes

LARGEST = 10_000_000  # bytes; our composed configs take a few thousand
_WIDTH = 110
_HINT = 'Start the run again, or give its config as a Python file.'


def dumps(value: Any) -> str:
    """JSON from which ``loads`` makes an equal value of equal types."""
    return pretty(_encode(value))


def pretty(value: Any) -> str:
    """Readable JSON of plain values: containers are on one line if they fit."""
    return f'{_pretty(value, 0)}\n'


def loads(text: str, where: str) -> Any:
    """The value that ``dumps`` wrote; ``where`` is the file named in errors."""
    try:
        return _decode(json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite))
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        reason = 'it is nested too deeply' if isinstance(error, RecursionError) else str(error)
        raise ConfigError(f'{where} is not a JSON config: {reason}', _HINT) from error


def read(path: Path) -> dict[str, Any]:
    """The composed config in a file."""
    content = loads(read_text(path), str(path))
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise ConfigError(f'{path} is not a config: it holds a {type(content).__name__}', _HINT)
    return content


def read_text(path: Path) -> str:
    """The text of a config file; an error if it is too large, unreadable or not text."""
    try:
        if path.stat().st_size > LARGEST:
            raise ConfigError(f'{path} has more than {LARGEST:,} bytes, too many for a config', 'Give the config of a run.')
        return read_bytes(path, LARGEST).decode().replace('\r\n', '\n')
    except (OSError, ValueError) as error:
        raise ConfigError(f'{path} cannot be read: {error}', 'A config is a text file.') from error


# to JSON


def _encode(value: Any) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):  # by the base type's method: enums and NumPy scalars become plain values
        return str.__str__(value) if _is_encodable(value) else {'!text': [ord(character) for character in value]}
    if isinstance(value, int):
        return int.__int__(value)
    if isinstance(value, float):
        return float.__float__(value) if math.isfinite(value) else {'!float': float.__repr__(value)}
    if isinstance(value, Mapping):
        return _encode_mapping(value)
    if isinstance(value, list):
        return [_encode(item) for item in value]
    if isinstance(value, tuple):
        return {'!tuple': [_encode(item) for item in value]}
    if isinstance(value, set | frozenset):
        items = sorted((_encode(item) for item in value), key=json.dumps)
        return {'!set' if isinstance(value, set) else '!frozenset': items}
    if isinstance(value, complex):
        return {'!complex': [_encode(value.real), _encode(value.imag)]}
    if isinstance(value, bytes):
        return {'!bytes': value.decode('latin-1')}
    if isinstance(value, Path):
        return str(value)
    raise ConfigError(
        f'a config holds a {type(value).__name__} ({value!r:.60}), which cannot be saved',
        'Keep numbers, strings, lists and dicts in configs; name classes and functions by type.',
    )


def _encode_mapping(value: Mapping[Any, Any]) -> dict[str, Any]:
    if all(isinstance(key, str) and not key.startswith('!') and _is_encodable(key) for key in value):
        return {str.__str__(key): _encode(item) for key, item in value.items()}
    return {'!dict': [[_encode(key), _encode(item)] for key, item in value.items()]}


def _is_encodable(text: str) -> bool:
    """Whether UTF-8 can encode the text: it cannot encode half of a surrogate pair."""
    return text.isascii() or not any('\ud800' <= character <= '\udfff' for character in text)


def _pretty(value: Any, depth: int) -> str:
    line = json.dumps(value, ensure_ascii=False, allow_nan=False)
    if not isinstance(value, dict | list) or len(line) + 2 * depth <= _WIDTH:
        return line
    inner = '  ' * (depth + 1)
    if isinstance(value, list):
        items = [inner + _pretty(item, depth + 1) for item in value]
    else:
        items = [f'{inner}{json.dumps(key, ensure_ascii=False)}: {_pretty(item, depth + 1)}' for key, item in value.items()]
    opening, closing = ('[', ']') if isinstance(value, list) else ('{', '}')
    return f'{opening}\n' + ',\n'.join(items) + f'\n{"  " * depth}{closing}'


# from JSON


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError('an object has a key twice')
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f'{name} is not valid JSON')


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f'{text} is beyond the range of floats')
    return value


def _decode(value: Any) -> Any:
    if isinstance(value, list):
        return [_decode(item) for item in value]
    if not isinstance(value, dict):
        return value
    tags = [key for key in value if key.startswith('!')]
    if not tags:
        return {key: _decode(item) for key, item in value.items()}
    if len(value) > 1:
        raise ValueError(f"the tag '{tags[0]}' is not the only key of its object")
    return _decode_tag(tags[0], value[tags[0]])


def _decode_tag(tag: str, content: Any) -> Any:
    if tag in ('!tuple', '!set', '!frozenset', '!dict', '!complex') and isinstance(content, list):
        items = [_decode(item) for item in content]
        if tag == '!tuple':
            return tuple(items)
        if tag == '!dict' and all(isinstance(item, list) and len(item) == 2 for item in items):
            found = dict(items)
            if len(found) == len(items):
                return found
        elif tag == '!complex' and len(items) == 2 and all(type(item) is float for item in items):
            return complex(*items)
        elif tag in ('!set', '!frozenset'):
            unique = set(items) if tag == '!set' else frozenset(items)
            if len(unique) == len(items):
                return unique
    elif tag == '!float' and content in ('inf', '-inf', 'nan'):
        return float(content)
    elif tag == '!bytes' and isinstance(content, str):
        return content.encode('latin-1')
    elif tag == '!text' and isinstance(content, list) and all(type(item) is int for item in content):
        return ''.join(map(chr, content))
    raise ValueError(f"the tag '{tag}' has {content!r:.60}")
