"""The rule for NAME, the name of a run: the path of a folder inside the folder of all runs."""

from __future__ import annotations

import os

from vq.core.errors import UserError

# bytes; file systems allow 255 in a part, and commands append to it: NAME_tokenize_train
LONGEST_PART, LONGEST = 200, 1000
HINT = "A NAME is one word, or several joined by '/': digits, vqgan/8192. --work-dir chooses the folder of all runs."


def checked(name: str) -> str:
    """The name without empty parts (``a//b/`` -> ``a/b``); an error if it leaves the folder of runs or names that folder."""
    if os.path.isabs(name):
        raise UserError(f"NAME '{_short(name)}' is an absolute path, and would leave the folder of runs", HINT)
    parts = [part for part in name.split('/') if part]
    if not parts:
        raise UserError('NAME is empty, so it would be the folder of all runs', HINT)
    if dots := [part for part in parts if part in ('.', '..')]:
        where = 'would leave the folder of runs' if '..' in dots else 'would be another name of the same folder'
        raise UserError(f"NAME '{_short(name)}' has the part '{dots[0]}', and {where}", HINT)
    if not name.isprintable():
        raise UserError(f'NAME {name!r:.80} has characters that cannot be printed', HINT)
    if any(len(os.fsencode(part)) > LONGEST_PART for part in parts) or len(os.fsencode(name)) > LONGEST:
        raise UserError(
            f"NAME '{_short(name)}' is too long: {len(os.fsencode(name))} bytes",
            f'At most {LONGEST_PART} bytes between two slashes and {LONGEST} in all are allowed. {HINT}',
        )
    return '/'.join(parts)


def _short(name: str) -> str:
    return name if len(name) <= 60 else f'{name[:40]}...{name[-15:]}'
