"""What an entry of the catalog of published files is."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class RemoteFile:
    """One file. ``digest``: 'sha256:...' (all digits or the first 8) or 'md5:...'; None if no public page gives one."""

    url: str
    path: str  # below the folder of pretrained files
    digest: str | None
    source: str  # the public page that names the address
    size: int | None = None  # bytes, if a page gives the exact number
    digest_source: str | None = None  # the page that gives the digest, if not ``source``
    bundled: str | None = None  # PACKAGE/PATH of the same file in a Python package, if it is installed


@dataclasses.dataclass(frozen=True)
class Published:
    """One entry: the files to fetch, and how to convert them."""

    name: str
    about: str
    files: tuple[RemoteFile, ...]
    kind: str | None = None  # of vq.tools.convert_checkpoints; None: not converted
    options: Mapping[str, object] = dataclasses.field(default_factory=dict)
    aliases: tuple[str, ...] = ()

    @property
    def converted(self) -> str:
        """The path of the converted tokenizer below the folder of pretrained files."""
        return f'{self.files[0].path}.converted'
