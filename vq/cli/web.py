"""The page in a browser: ``python -m vq.web``, or ``vq web``."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from vq.cli import arguments
from vq.cli.errors import command
from vq.core import environment
from vq.core.errors import UserError

EXAMPLES = """
examples:
  vq web
  vq web --work-dir /data/runs --device cuda:1 --port 8000

Layout: draw boxes, get images. Reconstruct: an image through a tokenizer. Generate: new images. Runs: curves and comparisons.
Only this machine can reach the page, and only with the whole address. From elsewhere: ssh -L 8000:127.0.0.1:8000 MACHINE.
"""


def make_parser() -> argparse.ArgumentParser:
    parser = arguments.parser(
        'vq.web', 'A page in the browser: draw layouts, reconstruct, generate, compare the runs of a folder.'
    )
    parser.epilog = EXAMPLES
    parser.add_argument('--work-dir', default=None, help='folder of all runs (default: work_dirs)')
    parser.add_argument('--port', type=int, default=0, metavar='P', help='port on this machine (default: one that is free)')
    parser.add_argument('--device', default='auto', help='cpu, cuda, cuda:1, mps; auto: a GPU if there is one')
    parser.add_argument('--open', action='store_true', help='open the page in a browser')
    return parser


@command
def main(argv: Sequence[str] | None = None) -> int:
    options = arguments.parse(make_parser(), argv)
    environment.need_one_process('vq web')
    environment.prepare()
    from vq.web.server import Site

    root = Path(options.work_dir or 'work_dirs')
    if not root.is_dir():
        raise UserError(f'there is no folder {root}', 'Run from the folder that holds work_dirs, or name it: --work-dir.')
    if not 0 <= options.port < 2**16:
        raise UserError(f'--port is {options.port}', 'Give a number below 65536, or leave it out.')
    try:
        site = Site(root, options.device, options.port)
    except OSError as error:
        raise UserError(
            f'port {options.port} cannot be taken: {error.strerror}', 'Give another one, or leave --port out.'
        ) from error
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        site.survey()  # the worker starts, and looks at the runs
        print(f'the page of {root}: {site.address}\nCtrl+C ends it.', flush=True)
        if options.open:
            import webbrowser

            webbrowser.open(site.address)
        site.serve_forever()
    except KeyboardInterrupt:
        print('ended', flush=True)
    finally:
        signal.signal(signal.SIGTERM, before)
        site.server_close()
    return 0
