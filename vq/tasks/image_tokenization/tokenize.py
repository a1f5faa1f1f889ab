"""Entry point of ``python -m vq.tasks.image_tokenization.tokenize``; the code is in ``vq/cli/tokenize.py``."""

import sys

from vq.cli.tokenize import main

if __name__ == '__main__':
    sys.exit(main())
