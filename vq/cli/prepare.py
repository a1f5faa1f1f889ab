"""Fetch, check and convert published checkpoints: ``python -m vq.tools.prepare_checkpoints NAME ...``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vq.cli import arguments
from vq.cli.errors import command, say
from vq.core import environment
from vq.core.errors import UserError, nearest

if TYPE_CHECKING:
    from vq.io.published.catalog import Published
    from vq.runners.progress import ProgressBar

EXAMPLES = """
examples:
  vq fetch                                     the catalog, and which files are here
  vq fetch lpips torchvision-vgg16
  vq fetch taming-f16-16384 --root /data/pretrained
"""


def make_parser() -> argparse.ArgumentParser:
    parser = arguments.parser(
        'vq.tools.prepare_checkpoints',
        'Fetch published files to the folder of pretrained files, check them, and convert the tokenizers among them.\n'
        'Files that are present and correct are not fetched again; interrupted downloads resume.',
    )
    parser.epilog = EXAMPLES
    parser.add_argument('names', metavar='NAME', nargs='*', help='entry to fetch; without a name: print the list')
    parser.add_argument('--list', action='store_true', help='print each entry, its size, and whether it is here')
    parser.add_argument('--root', metavar='DIR', help='folder of pretrained files (default: VQ_PRETRAINED, or pretrained)')
    parser.add_argument(
        '--mirror',
        metavar='URL',
        help='fetch the files from here: https://HOST/FOLDER replaces https://HOST in every address',
    )
    parser.add_argument('--no-convert', action='store_true', help='keep tokenizers in their published format')
    parser.add_argument('--force', action='store_true', help='fetch and convert again, even if files are present')
    return parser


@command
def main(argv: Sequence[str] | None = None) -> int:
    options = arguments.parse(make_parser(), argv)
    environment.need_one_process('vq.tools.prepare_checkpoints')
    from vq.assembly import logs
    from vq.io.download import on_another_host
    from vq.io.pretrained import pretrained_root
    from vq.io.published.catalog import CATALOG

    root = Path(options.root) if options.root else pretrained_root()
    entries = list(dict.fromkeys(known(name).name for name in options.names))
    chosen = [entry for entry in CATALOG if entry.name in entries] if entries else list(CATALOG)
    if options.list or not entries:
        print(table(chosen, root))
        return 0
    if options.mirror:
        on_another_host(chosen[0].files[0].url, options.mirror)  # raise for a bad address before anything is fetched
    logs.start()
    codes = [attempt(entry, root, options) for entry in sorted(chosen, key=lambda entry: entries.index(entry.name))]
    return 1 if 1 in codes else max(codes)


def known(name: str) -> Published:
    from vq.io.published.catalog import CATALOG, find

    entry = find(name)
    if entry is None:
        names = [each for entry in CATALOG for each in (entry.name, *entry.aliases)]
        raise UserError(
            f"nothing is published under the name '{name}'{nearest(name, names)}", f'There is: {", ".join(names)}.'
        )
    return entry


def attempt(entry: Published, root: Path, options: argparse.Namespace) -> int:
    """Prepare one entry. Its errors are printed, not raised, so that the other entries are still fetched."""
    try:
        prepare(entry, root, options)
    except UserError as error:
        say(f'{entry.name}: {error.message}', error.hint, error.exit_code)
        return error.exit_code
    except KeyboardInterrupt:
        say('interrupted', 'The part that has arrived is kept: the same command goes on where it stopped.')
        raise SystemExit(1) from None
    return 0


def prepare(entry: Published, root: Path, options: argparse.Namespace) -> None:
    from vq.io.pretrained import obtain
    from vq.io.published.catalog import conversions

    renewed = set()
    for remote in entry.files:
        with Bar(Path(remote.path).name) as bar:
            outcome = obtain(remote, root, options.mirror, options.force, bar.show, tell)
        if outcome != 'present':
            renewed.add(remote)
        tell(f'{entry.name}: {root / remote.path} {"is present, checked" if outcome == "present" else outcome}')
    for tokenizer in () if options.no_convert else conversions(entry):
        output = root / tokenizer.converted
        if output.exists() and renewed.isdisjoint(tokenizer.files):
            tell(f'{tokenizer.name}: {output} is present')
            continue
        convert(str(tokenizer.kind), tokenizer, root / tokenizer.files[0].path, output)


def convert(kind: str, entry: Published, file: Path, output: Path) -> None:
    environment.prepare()
    from vq.cli.convert import convert_file

    for name, text in convert_file(kind, file, entry.options, output):
        tell(f'{entry.name}: {name}: {text}')


def tell(text: str) -> None:
    print(text, flush=True)


class Bar:
    """A progress bar in megabytes, created when the size is known."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.bar: ProgressBar | None = None

    def show(self, done: int, total: int | None) -> None:
        from vq.runners.progress import ProgressBar

        if self.bar is None:
            self.bar = ProgressBar(f'fetching {self.name}', -(-(total or 0) // 10**6), 'MB', done // 10**6)
            self.bar.start()
        if done // 10**6 != self.bar.done:
            self.bar.advance(done // 10**6 - self.bar.done)

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *error: object) -> None:
        if self.bar is not None:
            self.bar.stop()


def table(entries: Sequence[Published], root: Path) -> str:
    """Name, size, state and meaning of each entry. The state depends on which files exist; no file is read."""
    rows = [('NAME', 'SIZE', 'STATE', 'WHAT')]
    for entry in entries:
        names = ', '.join((entry.name, *entry.aliases))
        rows.append((names, size_of(entry), state_of(entry, root), entry.about))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = ['  '.join((*(text.ljust(width) for text, width in zip(row, widths, strict=False)), row[3])) for row in rows]
    return '\n'.join([*lines, f'folder: {root}'])


def size_of(entry: Published) -> str:
    sizes = [remote.size for remote in entry.files if remote.size is not None]
    if len(sizes) < len(entry.files):
        return 'unknown'
    return f'{sum(sizes) / 1e6:,.1f} MB' if sum(sizes) > 1e5 else f'{sum(sizes) / 1e3:,.1f} kB'


def state_of(entry: Published, root: Path) -> str:
    from vq.io.published.catalog import conversions

    here = sum((root / remote.path).is_file() for remote in entry.files)
    if here < len(entry.files):
        begun = any((root / f'{remote.path}.part').exists() for remote in entry.files)
        return f'{here} of {len(entry.files)} files' if here else 'begun' if begun else 'missing'
    if not all((root / tokenizer.converted).exists() for tokenizer in conversions(entry)):
        return 'present, not converted'
    return 'present'


if __name__ == '__main__':
    sys.exit(main())
