"""Mean and deviation of latents: see vq/cli/latents.py."""

import sys

from vq.cli.latents import main

if __name__ == '__main__':
    sys.exit(main())
