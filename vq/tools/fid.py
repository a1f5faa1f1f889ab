"""FID of images that are there: see vq/cli/fid_of.py."""

import sys

from vq.cli.fid_of import main

if __name__ == '__main__':
    sys.exit(main())
