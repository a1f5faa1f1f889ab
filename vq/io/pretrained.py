"""Pretrained files: where they are stored, how they are fetched, and the error when one is missing.

``digests.json`` in their folder records SHA-256, address and date of each file that was fetched. If no digest of a file is
published, later calls check the file against the recorded one.
"""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from vq.core.errors import RunFailure, UserError
from vq.core.reading import read_json
from vq.io.atomic import atomic_file, write_json
from vq.io.digest import file_digest
from vq.io.download import Digest, Progress, check_inside, download, on_another_host, on_disk
from vq.io.published import catalog
from vq.io.published.catalog import RemoteFile

DIGESTS = 'digests.json'
Outcome = Literal['present', 'fetched', 'copied']


def pretrained_root() -> Path:
    """The folder of downloaded files: VQ_PRETRAINED, or ``pretrained`` in the working directory."""
    return Path(os.environ.get('VQ_PRETRAINED') or 'pretrained')


def pretrained_file(path: str | Path) -> Path:
    """The file at ``path``, below the folder of pretrained files unless absolute.

    If it is missing, the error says how to get it.
    """
    file = pretrained_root() / path
    if file.is_file():
        return file
    known = str(path) if not Path(path).is_absolute() else os.path.relpath(file, pretrained_root().absolute())
    owner = catalog.owner_of(known)
    if owner is None:
        raise UserError(f'the pretrained file {file} is missing', 'Put it there, or give its path in the config.')
    source = next(remote.source for remote in owner.files if remote.path == known)
    raise UserError(
        f'the pretrained file {file} is missing ({owner.about}; {source})',
        f'Fetch it: python -m vq.tools.prepare_checkpoints {owner.name}',
    )


def obtain(
    remote: RemoteFile,
    root: Path,
    base: str | None = None,
    force: bool = False,
    progress: Progress | None = None,
    say: Callable[[str], None] = print,
    pause: float = 1.0,
) -> Outcome:
    """Make sure that a published file exists below ``root``: fetch it if it is missing, and check its digest.

    ``base`` is the address of a mirror; ``force`` fetches a file that already exists. If the download fails and an
    installed package contains the file, it is copied from the package.
    """
    target = root / remote.path
    check_inside(target, root)
    with on_disk(target):
        known = _recorded(root).get(remote.path, {})
        expected = _expected(remote, known)
        if target.is_file() and not force:
            _check(target, expected)
            _record(root, remote, known.get('url'), say)
            return 'present'
        url = on_another_host(remote.url, base) if base else remote.url
        outcome: Outcome = 'fetched'
        try:
            download(
                url,
                target,
                expected.digest,
                root=root,
                progress=progress,
                pause=pause,
                expected_by=expected.by,
                public_url=remote.url,
                size=remote.size,
            )
        except RunFailure as failure:
            if not _copy_bundled(remote, target, expected):
                raise
            say(f'{failure.message}\ncopied {target} from the installed package {remote.bundled} instead')
            url, outcome = f'installed package {remote.bundled}', 'copied'
        _record(root, remote, url, say)
    return outcome


# digests


@dataclasses.dataclass(frozen=True)
class _Expected:
    digest: str | None
    by: str


def _expected(remote: RemoteFile, known: dict[str, Any]) -> _Expected:
    """The published digest; if there is none, the one recorded at the first download."""
    if remote.digest:
        return _Expected(remote.digest, f'published ({remote.digest_source or remote.source})')
    if 'sha256' in known:
        return _Expected(f'sha256:{known["sha256"]}', f'what {DIGESTS} recorded on {known.get("date", "an unknown day")}')
    return _Expected(None, '')


def _hash(file: Path, algorithm: str) -> str:
    if algorithm == 'sha256':
        return file_digest(file)
    with open(file, 'rb') as opened:
        return hashlib.file_digest(opened, algorithm).hexdigest()


def _check(file: Path, expected: _Expected) -> None:
    if expected.digest is None:
        return
    wanted = Digest.parse(expected.digest)
    found = _hash(file, wanted.algorithm)
    if not wanted.accepts(found):
        raise RunFailure(
            f'{file} has the digest {wanted.algorithm}:{found}, and {wanted} is {expected.by}',
            'If you did not change it on purpose, fetch it again with --force; or move it away.',
        )


def recorded_digest(file: Path) -> tuple[str, str] | None:
    """SHA-256 and date that ``digests.json`` records of a file in the folder of pretrained files; None without an entry."""
    root = pretrained_root().absolute()
    if not file.absolute().is_relative_to(root):
        return None
    known = _recorded(root).get(file.absolute().relative_to(root).as_posix(), {})
    return (str(known['sha256']), str(known.get('date', 'an unknown day'))) if 'sha256' in known else None


def _recorded(root: Path) -> dict[str, dict[str, Any]]:
    file = root / DIGESTS
    if not file.exists():
        return {}
    try:
        recorded = read_json(file)
        return {str(path): dict(entry) for path, entry in recorded.items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise UserError(
            f'{file} cannot be read: {error}', 'Repair it, or delete it: digests are then recorded anew.'
        ) from error


def _record(root: Path, remote: RemoteFile, url: str | None, say: Callable[[str], None]) -> None:
    """Record the SHA-256 of a file, unless it is already recorded."""
    recorded = _recorded(root)  # read again: another process may have added to it
    sha256 = file_digest(root / remote.path)
    if recorded.get(remote.path, {}).get('sha256') == sha256:
        return
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    recorded[remote.path] = {'sha256': sha256, 'url': url or 'put there by hand', 'date': today}
    write_json(root / DIGESTS, dict(sorted(recorded.items())))
    if remote.digest is None:
        say(f'no digest is published for {remote.path}; recorded sha256:{sha256} in {root / DIGESTS}, to check against later')


# files contained in installed packages


def _bundled(remote: RemoteFile) -> Path | None:
    """The path of the file in an installed package, without importing the package."""
    package, _, path = (remote.bundled or '').partition('/')
    spec = importlib.util.find_spec(package) if package else None
    places = [Path(place) / path for place in (spec.submodule_search_locations or ())] if spec else []
    return next((place for place in places if place.is_file()), None)


def _copy_bundled(remote: RemoteFile, target: Path, expected: _Expected) -> bool:
    source = _bundled(remote)
    wanted = Digest.parse(expected.digest) if expected.digest else None
    if source is None or (wanted and not wanted.accepts(_hash(source, wanted.algorithm))):
        return False
    with atomic_file(target, source.stat().st_size) as writer:
        writer.write(source.read_bytes())
    return True
