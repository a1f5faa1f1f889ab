"""The closing lines of a command: what to do next."""

from __future__ import annotations

import os

MARK = 'next: '


def say_next(*lines: str) -> None:
    """Print commands that usually come next, on the first rank only. The first one is marked, the others stand below it.

    next: vq report tok
          vq train gen photos/ar.py tokenizer=tok
    """
    if not lines or os.environ.get('RANK', '0').strip() not in ('', '0'):
        return
    print('\n'.join(f'{MARK if position == 0 else " " * len(MARK)}{line}' for position, line in enumerate(lines)), flush=True)
