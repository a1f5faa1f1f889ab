"""Door: ``python -m vq.config``. The body is in ``vq/cli/config.py``."""

import sys

from vq.cli.config import main

if __name__ == '__main__':
    sys.exit(main())
