"""FID of images that are there: ``auto_torchrun tools/fid.py REFERENCE IMAGES``. The body is ``vq/cli/fid_of.py``."""

from __future__ import annotations

import sys

from vq.cli.fid_of import main

if __name__ == '__main__':
    sys.exit(main())
