"""Results side by side: ``python tools/compare.py A.json B.json``. The body is ``vq/cli/compare.py``."""

from __future__ import annotations

import sys

from vq.cli.compare import main

if __name__ == '__main__':
    sys.exit(main())
