"""Entry point of ``python -m vq.test``; the code is in ``vq/cli/test.py``."""

import sys

from vq.cli.test import main

if __name__ == '__main__':
    sys.exit(main())
