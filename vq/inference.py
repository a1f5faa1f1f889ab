"""Door: ``python -m vq.inference``. The body is in ``vq/cli/inference.py``."""

import sys

from vq.cli.inference import main

if __name__ == '__main__':
    sys.exit(main())
