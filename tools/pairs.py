"""PSNR, SSIM, LPIPS of two folders: ``auto_torchrun tools/pairs.py A B``. The body is ``vq/cli/pairs.py``."""

from __future__ import annotations

import sys

from vq.cli.pairs import main

if __name__ == '__main__':
    sys.exit(main())
