"""PSNR, SSIM, LPIPS of two folders: see vq/cli/pairs.py."""

import sys

from vq.cli.pairs import main

if __name__ == '__main__':
    sys.exit(main())
