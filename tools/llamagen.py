"""Ten crops as tokens: ``auto_torchrun tools/llamagen.py NAME CONFIG --load-model-from F``. Body: ``vq/cli/llamagen.py``."""

from __future__ import annotations

import sys

from vq.cli.llamagen import main

if __name__ == '__main__':
    sys.exit(main())
