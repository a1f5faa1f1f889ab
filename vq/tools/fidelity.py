"""FID through torch-fidelity: see vq/cli/fidelity.py."""

import sys

from vq.cli.fidelity import main

if __name__ == '__main__':
    sys.exit(main())
