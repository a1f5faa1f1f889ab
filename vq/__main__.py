"""Entry point of ``python -m vq``; the code is in ``vq/cli/main.py``."""

import sys

from vq.cli.main import main

if __name__ == '__main__':
    sys.exit(main())
