"""Entry point of ``python -m vq.demo``; the code is in ``vq/cli/demo.py``."""

import sys

from vq.cli.demo import main

if __name__ == '__main__':
    sys.exit(main())
