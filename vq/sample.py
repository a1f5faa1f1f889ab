"""Entry point of ``python -m vq.sample``; the code is in ``vq/cli/sample.py``."""

import sys

from vq.cli.sample import main

if __name__ == '__main__':
    sys.exit(main())
