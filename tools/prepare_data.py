"""Fetch and prepare datasets: ``python tools/prepare_data.py NAME ...``. The body is ``vq/cli/prepare_data.py``."""

from __future__ import annotations

import sys

from vq.cli.prepare_data import main

if __name__ == '__main__':
    sys.exit(main())
