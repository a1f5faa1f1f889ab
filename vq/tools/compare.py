"""Results side by side: see vq/cli/compare.py."""

import sys

from vq.cli.compare import main

if __name__ == '__main__':
    sys.exit(main())
