"""Entry point of ``python -m vq.config``; the code is in ``vq/cli/config.py``."""

import sys

from vq.cli.config import main

if __name__ == '__main__':
    sys.exit(main())
