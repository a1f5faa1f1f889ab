"""Figures of the images of ``vq.sample --protocol``: see vq/cli/layout_figures.py."""

import sys

from vq.cli.layout_figures import main

if __name__ == '__main__':
    sys.exit(main())
