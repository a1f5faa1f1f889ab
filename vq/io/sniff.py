"""The format of a weights file, recognised by its content. Works without torch."""

from __future__ import annotations

from pathlib import Path

from vq.core.errors import UserError
from vq.core.reading import open_regular


def sniff(path: Path) -> str:
    """The format of a file by its first bytes: safetensors, torch (zip) or torch-legacy (pickle)."""
    try:
        with open_regular(path) as file:
            start = file.read(64)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UserError(f'{path} cannot be read: {error.strerror}', 'See its permissions, and the disk.') from error
    size = path.stat().st_size
    if start.startswith(b'PK\x03\x04'):
        return 'torch'
    # before the pickle: a header of 0x280 bytes begins like one
    if len(start) > 8 and start[8:9] == b'{' and int.from_bytes(start[:8], 'little') <= size - 8:
        return 'safetensors'
    if start[:1] == b'\x80' and start[1:2] in (b'\x02', b'\x03', b'\x04', b'\x05'):
        return 'torch-legacy'
    if start.startswith(b'version https://git-lfs'):
        raise UserError(f'{path} is a Git LFS pointer, not the weights', 'Fetch the file itself: git lfs pull.')
    if start.lstrip()[:5].lower() in (b'<!doc', b'<html'):
        raise UserError(f'{path} is a web page, not weights', 'The download went wrong: fetch the file again.')
    raise UserError(
        f'{path} is not a file of weights: it is neither safetensors nor a torch file',
        'Give a safetensors file, a torch file, a checkpoint folder or a run folder.',
    )
