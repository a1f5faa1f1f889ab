"""The image patches of codes: see vq/cli/visualize_patches.py."""

import sys

from vq.cli.visualize_patches import main

if __name__ == '__main__':
    sys.exit(main())
