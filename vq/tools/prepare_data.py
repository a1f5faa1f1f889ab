"""Fetch and prepare datasets: see vq/cli/prepare_data.py."""

import sys

from vq.cli.prepare_data import main

if __name__ == '__main__':
    sys.exit(main())
