"""The manifest of a set of shards: its producer, its source, and every file with size and checksum."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vq.core.errors import UserError
from vq.io import atomic

FORMAT_VERSION = 1
NAME = 'manifest.json'
_MAKERS = {'tokens': 'tokenizer'}  # kind -> what messages call its producer; default: 'producer'

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

    def write(self, folder: Path) -> None:
        totals = {'count': self.count, 'skipped': self.skipped}
        atomic.write_json(folder / NAME, {'format_version': self.format_version, **dataclasses.asdict(self), **totals})


def shard_name(index: int, count: int) -> str:
    return f'shard-{index:05d}-of-{count:05d}.safetensors'


def is_shard_name(name: str) -> bool:
    return re.fullmatch(r'shard-\d{5,}-of-\d{5,}\.safetensors', name) is not None


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a folder, complete or not."""
    path = folder / NAME
    try:
        value = json.loads(path.read_bytes())
        version = value['format_version']
        if version != FORMAT_VERSION:
            raise UserError(
                f'{path} has format {version}, and this vq reads {FORMAT_VERSION}',
                'Write the set again, or use the vq that wrote it.',
            )
        fields = {field.name: value[field.name] for field in dataclasses.fields(Manifest)}
        manifest = Manifest(**{**fields, 'shards': [ShardEntry(**entry) for entry in value['shards']]})
        sound = _is_sound(manifest)
    except FileNotFoundError as error:
        raise UserError(
            f'there is no set of shards in {folder}: {NAME} is missing', 'Give the folder that the tokenize command wrote.'
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f'{path} cannot be read: {type(error).__name__} {error}', 'Write the set again.') from error
    if not sound:
        raise UserError(f'{path} contradicts itself', 'Write the set again.')
    return manifest


def _is_sound(manifest: Manifest) -> bool:
    shards = manifest.shards
    numbers = [manifest.total, manifest.shard_size, *(n for shard in shards for n in (shard.count, shard.size))]
    if any(type(number) is not int or number < 0 for number in numbers) or manifest.shard_size < 1:
        return False
    if not isinstance(manifest.producer, dict) or not isinstance(manifest.columns, dict):
        return False
    # names are computed, so that a manifest cannot point at files elsewhere
    names = [shard_name(index, manifest.shard_count) for index in range(manifest.shard_count if manifest.complete else 0)]
    return [shard.name for shard in shards] == names


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
