"""Entry point of ``python -m vq.fid``; the code is in ``vq/cli/fid.py``."""

import sys

from vq.cli.fid import main

if __name__ == '__main__':
    sys.exit(main())
