"""Damage to a file: of the kinds that disks, networks and attackers cause. The stream determines it."""

from __future__ import annotations

import json
import random
import zipfile
from collections.abc import Callable
from io import BytesIO
from typing import Any

Damage = Callable[[bytes, random.Random], bytes]

ODD: tuple[Any, ...] = (
    *(None, True, -1, 0, 2**31, 10**30, 1e308, '', 'x', 'x' * 1000, '\0', '../x', '/etc/passwd', '\ud800', [], {}),
    *([[]] * 3, {'a': {}}, float('nan'), '9' * 5000),
)


def below(stream: random.Random, count: int) -> int:
    """A number from 0 to ``count - 1``: by ``random`` alone, whose sequence Python keeps across versions."""
    return int(stream.random() * max(1, count))


def block(data: bytes, stream: random.Random) -> slice:
    start = below(stream, len(data))
    return slice(start, start + 1 + below(stream, min(64, len(data))))


def flip(data: bytes, stream: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(1 + below(stream, 4) if changed else 0):
        changed[below(stream, len(changed))] ^= 1 << below(stream, 8)
    return bytes(changed)


def cut(data: bytes, stream: random.Random) -> bytes:
    return data[: below(stream, len(data))]


def cut_start(data: bytes, stream: random.Random) -> bytes:
    return data[1 + below(stream, len(data)) :]


def zeros(data: bytes, stream: random.Random) -> bytes:
    place = block(data, stream)
    return data[: place.start] + bytes(len(data[place])) + data[place.stop :]


def noise(data: bytes, stream: random.Random) -> bytes:
    place = block(data, stream)
    return data[: place.start] + bytes(below(stream, 256) for _ in data[place]) + data[place.stop :]


def repeat(data: bytes, stream: random.Random) -> bytes:
    place = block(data, stream)
    return data[: place.stop] + data[place] + data[place.stop :]


def lose(data: bytes, stream: random.Random) -> bytes:
    place = block(data, stream)
    return data[: place.start] + data[place.stop :]


def swap(data: bytes, stream: random.Random) -> bytes:
    first, second = sorted((block(data, stream), block(data, stream)), key=lambda place: place.start)
    stop = min(first.stop, second.start)
    return data[: first.start] + data[second] + data[stop : second.start] + data[first.start : stop] + data[second.stop :]


def largest(data: bytes, stream: random.Random) -> bytes:
    """The largest number in the place of a length."""
    place, size = below(stream, len(data)), (2, 4, 8)[below(stream, 3)]
    return data[:place] + (b'\xff' * size, b'\xff' * (size - 1) + b'\x7f')[below(stream, 2)] + data[place + size :]


def append(data: bytes, stream: random.Random) -> bytes:
    return data + bytes(below(stream, 256) for _ in range(1 + below(stream, 64)))


BYTES: dict[str, Damage] = {
    'flipped bits': flip,
    'cut': cut,
    'start cut': cut_start,
    'zeros': zeros,
    'noise': noise,
    'repeated block': repeat,
    'lost block': lose,
    'swapped blocks': swap,
    'largest length': largest,
    'bytes after the end': append,
}

# files that are written anew with other content: no checksum can tell


def change_value(value: Any, stream: random.Random) -> Any:
    """A JSON value with one of its parts replaced by an odd one, or removed."""
    if isinstance(value, dict | list) and value and stream.random() < 0.8:
        keys = [*value] if isinstance(value, dict) else [*range(len(value))]
        key = keys[below(stream, len(keys))]
        copied: Any = value.copy()
        if stream.random() < 0.1:
            del copied[key]
        else:
            copied[key] = change_value(value[key], stream)
        return copied
    return ODD[below(stream, len(ODD))]


def change_json(data: bytes, stream: random.Random) -> bytes:
    kind = below(stream, 12)
    if kind == 0:
        return (b'[', b'{"a":')[below(stream, 2)] * 100_000
    if kind == 1:
        return b'{"a": ' + b'9' * 5000 + b'}'
    return json.dumps(change_value(json.loads(data), stream)).encode()


def change_header(data: bytes, stream: random.Random) -> bytes:
    """The header of a safetensors file."""
    size = int.from_bytes(data[:8], 'little')
    header = change_json(data[8 : 8 + size], stream)
    return len(header).to_bytes(8, 'little') + header + data[8 + size :]


def change_member(data: bytes, stream: random.Random) -> bytes:
    """A member of a zip file, with its checksum made to fit; in some files compressed."""
    result = BytesIO()
    with zipfile.ZipFile(BytesIO(data)) as source, zipfile.ZipFile(result, 'w') as target:
        method = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)[below(stream, 2)]
        names = source.namelist()
        chosen = names[below(stream, len(names))]
        for name in names:
            content = source.read(name)
            if name == chosen:
                content = [*BYTES.values()][below(stream, len(BYTES))](content, stream)
            target.writestr(zipfile.ZipInfo(name), content, method)  # without the time of day
    return result.getvalue()


def rewriting(data: bytes, name: str) -> Damage | None:
    """How a file of this content is written anew with other content."""
    if name.endswith('.json') or name == 'COMPLETE':
        return change_json
    if data[:4] == b'PK\x03\x04':
        return change_member
    return change_header if data[8:9] == b'{' else None
