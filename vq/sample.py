"""Door: ``python -m vq.sample``. The body is in ``vq/cli/sample.py``."""

import sys

from vq.cli.sample import main

if __name__ == '__main__':
    sys.exit(main())
