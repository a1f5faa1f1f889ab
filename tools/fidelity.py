"""FID through torch-fidelity: ``python tools/fidelity.py REFERENCE IMAGES``. The body is ``vq/cli/fidelity.py``."""

from __future__ import annotations

import sys

from vq.cli.fidelity import main

if __name__ == '__main__':
    sys.exit(main())
