"""The digest that a safetensors file carries in its own metadata, under ``vq.sha256``.

It is the SHA-256 of our other metadata, and of name, type, shape and bytes of each tensor in order of name. So it does not
depend on the layout of the file, and other readers and writers of the format can ignore it. A file without it is not checked.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

KEY = 'vq.sha256'
_OURS = 'vq.'  # prefix of the metadata that the digest covers; other tools add entries of their own

Described = Mapping[str, tuple[str, tuple[int, ...]]]  # name -> type code, shape


def digest(described: Described, notes: Mapping[str, str], bytes_of: Callable[[str], Any]) -> str:
    """The digest of tensors and metadata. ``bytes_of`` gives the bytes of a tensor as a buffer, in C order."""
    total = hashlib.sha256()
    ours = {name: text for name, text in notes.items() if name.startswith(_OURS) and name != KEY}
    total.update(json.dumps(ours, sort_keys=True).encode() + b'\n')
    for name in sorted(described):
        code, shape = described[name]
        total.update(json.dumps([name, code, [*shape]]).encode() + b'\n')
        total.update(bytes_of(name))
    return total.hexdigest()


def is_intact(described: Described, notes: Mapping[str, str], bytes_of: Callable[[str], Any]) -> bool:
    """Whether the digest of a file is that of its content; a file without a digest counts as intact."""
    return KEY not in notes or digest(described, notes, bytes_of) == notes[KEY]
