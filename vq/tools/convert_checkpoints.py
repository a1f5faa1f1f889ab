"""Convert what others have published: see vq/cli/convert.py."""

import sys

from vq.cli.convert import main

if __name__ == '__main__':
    sys.exit(main())
