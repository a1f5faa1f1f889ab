"""The tables of docs/energy.md and docs/layout.md, from the files docs/NAME_flags.tsv: ``python -m tests.flag_tables``
writes them."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

DOCS = Path(__file__).parent.parent / 'docs'
NAMES = ('energy', 'layout')
END = '<!-- end of what tests/flag_tables.py writes -->'


class Flag(NamedTuple):
    theirs: str
    ours: str
    did: str


def page_of(name: str) -> Path:
    return DOCS / f'{name}.md'


def flags(name: str) -> list[Flag]:
    lines = (DOCS / f'{name}_flags.tsv').read_text(encoding='utf-8').splitlines()
    return [Flag(*line.split('\t')) for line in lines]


def written(name: str) -> str:
    """The page with the table of now."""
    begin = f'<!-- written by tests/flag_tables.py from docs/{name}_flags.tsv -->'
    before, _, rest = page_of(name).read_text(encoding='utf-8').partition(begin)
    after = rest.partition(END)[2]
    rows = ['| theirs | ours | what it does there |', '|---|---|---|']
    rows += [f'| `{flag.theirs}` | {flag.ours} | {flag.did} |' for flag in flags(name)]
    return '\n'.join([before + begin, *rows, END + after])


if __name__ == '__main__':
    for each in NAMES:
        page_of(each).write_text(written(each), encoding='utf-8')
