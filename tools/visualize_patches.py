"""The image patches of codes: ``python tools/visualize_patches.py CONFIG TOKENS``. Body: ``vq/cli/visualize_patches.py``."""

from __future__ import annotations

import sys

from vq.cli.visualize_patches import main

if __name__ == '__main__':
    sys.exit(main())
