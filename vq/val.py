"""Entry point of ``python -m vq.val``; the code is in ``vq/cli/val.py``."""

import sys

from vq.cli.val import main

if __name__ == '__main__':
    sys.exit(main())
