"""The manifest of a set of shards: its producer, its source, and every file with size and checksum."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vq.core.errors import UserError
from vq.io import atomic, remote

FORMAT_VERSION = 1
NAME = 'manifest.json'
LARGEST = 64_000_000  # bytes; 1,000 shards take 200,000
_MOST = 2**62  # samples, rows, bytes
_MAKERS = {'tokens': 'tokenizer', 'latents': 'tokenizer'}  # kind -> what messages call its producer; default: 'producer'

Producer = dict[str, Any]


@dataclasses.dataclass
class ShardEntry:
    """One file of a complete set."""

    name: str
    count: int  # rows
    size: int  # bytes
    sha256: str
    skipped: list[str]  # ids of samples of this range that could not be read


@dataclasses.dataclass
class Manifest:
    """``manifest.json``. ``shards`` and ``columns`` are empty until the set is complete."""

    kind: str  # tokens, images, latents
    total: int  # samples of the split; skipped samples have no row
    shard_size: int
    producer: Producer
    complete: bool = False
    shards: list[ShardEntry] = dataclasses.field(default_factory=list)
    columns: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)  # name -> dtype, shape of one row
    notes: dict[str, Any] = dataclasses.field(default_factory=dict)  # what the complete set says of itself, such as statistics
    format_version: int = FORMAT_VERSION

    @property
    def count(self) -> int:
        """Rows of the set."""
        return sum(shard.count for shard in self.shards)

    @property
    def skipped(self) -> list[str]:
        return [sample for shard in self.shards for sample in shard.skipped]

    @property
    def shard_count(self) -> int:
        return -(-self.total // self.shard_size)

    def fingerprint(self) -> str:
        """A short digest of the content of a complete set."""
        files = '\n'.join(entry.sha256 for entry in self.shards)
        return hashlib.blake2b(files.encode(), digest_size=8).hexdigest()

    def note(self, index: int) -> str:
        """What shard ``index`` says in its own header: which samples of which set it holds."""
        start = index * self.shard_size
        about = {
            'format_version': FORMAT_VERSION,
            'kind': self.kind,
            'start': start,
            'stop': min(start + self.shard_size, self.total),
            'producer': self.producer,
        }
        return json.dumps(about, sort_keys=True)

    def write(self, folder: Path) -> None:
        totals = {'count': self.count, 'skipped': self.skipped}
        content = {'format_version': self.format_version, **dataclasses.asdict(self), **totals}
        if not self.notes:
            del content['notes']
        atomic.write_json(folder / NAME, content)


def shard_name(index: int, count: int) -> str:
    return f'shard-{index:05d}-of-{count:05d}.safetensors'


def is_shard_name(name: str) -> bool:
    return re.fullmatch(r'shard-\d{5,}-of-\d{5,}\.safetensors', name) is not None


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a folder, complete or not."""
    path = folder / NAME
    try:
        value = remote.read_json(path, LARGEST)
        version = value['format_version']
        if version != FORMAT_VERSION:
            raise UserError(
                f'{path} has format {version}, and this vq reads {FORMAT_VERSION}',
                'Write the set again, or use the vq that wrote it.',
            )
        fields = {field.name: value[field.name] for field in dataclasses.fields(Manifest) if field.name != 'notes'}
        fields['notes'] = value.get('notes', {})
        manifest = Manifest(**{**fields, 'shards': [ShardEntry(**entry) for entry in value['shards']]})
        sound = _is_sound(manifest)
    except FileNotFoundError as error:
        raise UserError(
            f'there is no set of shards in {folder}: {NAME} is missing', 'Give the folder that the tokenize command wrote.'
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f'{path} cannot be read: {type(error).__name__} {error}', 'Write the set again.') from error
    if not sound:
        raise UserError(f'{path} contradicts itself', 'Write the set again.')
    return manifest


def _is_sound(manifest: Manifest) -> bool:
    shards = manifest.shards
    numbers = [manifest.total, manifest.shard_size, *(n for shard in shards for n in (shard.count, shard.size))]
    if any(type(number) is not int or not 0 <= number <= _MOST for number in numbers) or manifest.shard_size < 1:
        return False
    if not all(isinstance(part, dict) for part in (manifest.producer, manifest.columns, manifest.notes)):
        return False
    if not isinstance(manifest.kind, str) or not all(map(_is_column, manifest.columns.values())):
        return False
    if not all(isinstance(shard.skipped, list) and isinstance(shard.sha256, str) for shard in shards):
        return False
    if manifest.complete and 'id' not in manifest.columns:
        return False
    if len(shards) != (manifest.shard_count if manifest.complete else 0):  # before a name is made for each shard it claims
        return False
    # names are computed, so that a manifest cannot point at files elsewhere
    names = [shard_name(index, manifest.shard_count) for index in range(len(shards))]
    return [shard.name for shard in shards] == names


def _is_column(about: Any) -> bool:
    if not isinstance(about, dict) or not isinstance(about.get('dtype'), str) or not isinstance(about.get('shape'), list):
        return False
    return re.fullmatch(r'bytes|u?int\d+|b?float\d+', about['dtype']) is not None and all(
        type(size) is int and 0 <= size <= _MOST for size in about['shape']
    )


def check_producer(folder: Path, manifest: Manifest, expected: Mapping[str, Any], exact: bool = False) -> None:
    """Raise if the producer of the set differs from ``expected``. The error names the first field that differs.

    Fields that ``expected`` does not have are compared only if ``exact``.
    """
    field = first_difference(expected, manifest.producer)
    if field is None and exact:
        field = first_difference(manifest.producer, plain(expected))
    if field is None:
        return
    maker = _MAKERS.get(manifest.kind, 'producer')
    raise UserError(
        f"{folder} holds {manifest.kind} of another {maker}: '{field}' is {_at(manifest.producer, field)} there "
        f'and {_at(expected, field)} here',
        f'Use the {maker} these were made with, or write them again into another folder.',
    )


def first_difference(expected: Any, found: Any, path: str = '') -> str | None:
    """The dotted name of the first entry of ``expected`` that is missing in ``found`` or has another value."""
    if isinstance(expected, Mapping) and isinstance(found, Mapping):
        for key, value in expected.items():
            where = f'{path}.{key}' if path else str(key)
            difference = first_difference(value, found[key], where) if key in found else where
            if difference is not None:
                return difference
        return None
    return None if plain(expected) == found else path


def plain(value: Any) -> Any:
    """``value`` after a round trip through JSON: tuples become lists."""
    return json.loads(json.dumps(value))


def _at(value: Any, path: str) -> str:
    for key in path.split('.'):
        if not isinstance(value, Mapping) or key not in value:
            return 'missing'
        value = value[key]
    return f'{value!r:.60}'
