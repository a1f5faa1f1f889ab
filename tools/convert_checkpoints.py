"""Convert what others have published: ``tools/convert_checkpoints.py KIND FILE``. The body is in ``vq/cli/convert.py``."""

import sys

from vq.cli.convert import main

if __name__ == '__main__':
    sys.exit(main())
