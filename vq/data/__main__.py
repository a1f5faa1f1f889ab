"""Entry point of ``python -m vq.data``; the code is in ``vq/cli/data.py``."""

import sys

from vq.cli.data import main

if __name__ == '__main__':
    sys.exit(main())
