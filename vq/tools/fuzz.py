"""Damaged and hostile files, read as commands read them: see vq/cli/fuzz.py."""

import sys

from vq.cli.fuzz import main

if __name__ == '__main__':
    sys.exit(main())
