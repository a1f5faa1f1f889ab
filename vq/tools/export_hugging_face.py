"""Write a trained generator in the Hugging Face Llama layout: see vq/cli/export.py."""

import sys

from vq.cli.export import main

if __name__ == '__main__':
    sys.exit(main())
