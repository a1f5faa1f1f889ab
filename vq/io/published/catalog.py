"""Files others have published, by the name that ``tools/prepare_checkpoints.py`` and ``vq.load`` know them under."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class RemoteFile:
    """One file. ``digest`` is 'sha256:...' (whole, or its first 8 digits) or 'md5:...' as ``source`` gives it, or None."""

    url: str
    path: str  # below the folder of pretrained files
    digest: str | None
    source: str  # the public page that names it


@dataclasses.dataclass(frozen=True)
class Published:
    """One entry: what to fetch, and how to turn it into ours."""

    name: str
    about: str
    files: tuple[RemoteFile, ...]
    kind: str | None = None  # of tools/convert_checkpoints.py; None: used as it is
    options: Mapping[str, object] = dataclasses.field(default_factory=dict)

    @property
    def converted(self) -> str:
        """Where the converted tokenizer lies, below the folder of pretrained files."""
        return f'{self.files[0].path}.converted'


CATALOG: tuple[Published, ...] = ()


def find(name: str) -> Published | None:
    return next((entry for entry in CATALOG if entry.name == name), None)


def owner_of(path: str) -> Published | None:
    """The entry that brings a file."""
    return next((entry for entry in CATALOG if any(remote.path == path for remote in entry.files)), None)
