"""Fetch published files: ``python tools/prepare_checkpoints.py NAME ...``. The body is ``vq/cli/prepare.py``."""

from __future__ import annotations

import sys

from vq.cli.prepare import main

if __name__ == '__main__':
    sys.exit(main())
