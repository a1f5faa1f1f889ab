"""Shards at an address: the manifest first, then each shard when it is used, as a copy that is mapped into memory.

The SHA-256 in the manifest is compared with every copy before its first row is used.
"""

from __future__ import annotations

from pathlib import Path

from vq.core.errors import UserError
from vq.io import remote
from vq.io.manifest import NAME, Manifest, ShardEntry
from vq.io.remote_cache import cache
from vq.io.stores import Stat


def manifest_folder(url: str) -> Path:
    """A local folder with the manifest of the set at ``url``."""
    try:
        return remote.local_file(remote.below(url, NAME)).parent
    except FileNotFoundError as error:
        raise UserError(
            f'there is no set of shards in {url}: {NAME} is missing', 'Give the folder that holds it and the shards.'
        ) from error


def fetch(url: str, entry: ShardEntry) -> Path:
    """The path of a copy of a shard."""
    place = remote.below(url, entry.name)
    return remote.local_file(place, _stat(place, entry))


def forget(url: str, entry: ShardEntry) -> None:
    place = remote.below(url, entry.name)
    remote.forget(place, _stat(place, entry))


def _stat(place: str, entry: ShardEntry) -> Stat:
    try:
        found = remote.stat(place)
    except FileNotFoundError as error:
        raise UserError(f'the shard {place} is missing', f'Copy the set there again, with {NAME}.') from error
    if found.size != entry.size:
        raise UserError(
            f'the shard {place} has {found.size:,} bytes, and {NAME} says {entry.size:,}',
            f'It was changed or cut: copy the set there again, with {NAME}.',
        )
    return found


def most_open(manifest: Manifest, most: int) -> int:
    """How many copies are held open: the disk keeps a deleted file that is open, so they have half of the cache's bound."""
    largest = max((entry.size for entry in manifest.shards), default=1)
    return max(1, min(most, cache().limit // (2 * max(largest, 1))))
