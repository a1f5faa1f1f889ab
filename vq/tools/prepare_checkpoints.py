"""Fetch published files: see vq/cli/prepare.py."""

import sys

from vq.cli.prepare import main

if __name__ == '__main__':
    sys.exit(main())
