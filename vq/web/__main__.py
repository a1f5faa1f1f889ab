"""Entry point of ``python -m vq.web``; the code is in ``vq/cli/web.py``."""

import sys

from vq.cli.web import main

if __name__ == '__main__':
    sys.exit(main())
