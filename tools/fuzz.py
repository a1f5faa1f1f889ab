"""Damaged and hostile files, read as commands read them: ``python tools/fuzz.py``. The body is ``vq/cli/fuzz.py``."""

from __future__ import annotations

import sys

from vq.cli.fuzz import main

if __name__ == '__main__':
    sys.exit(main())
