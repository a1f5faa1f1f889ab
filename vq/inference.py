"""Entry point of ``python -m vq.inference``; the code is in ``vq/cli/inference.py``."""

import sys

from vq.cli.inference import main

if __name__ == '__main__':
    sys.exit(main())
