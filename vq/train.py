"""Entry point of ``python -m vq.train``; the code is in ``vq/cli/train.py``."""

import sys

from vq.cli.train import main

if __name__ == '__main__':
    sys.exit(main())
