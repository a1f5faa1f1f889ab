"""Ten crops as tokens: see vq/cli/llamagen.py."""

import sys

from vq.cli.llamagen import main

if __name__ == '__main__':
    sys.exit(main())
