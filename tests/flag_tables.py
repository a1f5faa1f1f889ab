"""The table of docs/energy.md, from docs/energy_flags.tsv: ``python -m tests.flag_tables`` writes it."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

DOCS = Path(__file__).parent.parent / 'docs'
PAGE, SOURCE = DOCS / 'energy.md', DOCS / 'energy_flags.tsv'
BEGIN = '<!-- written by tests/flag_tables.py from docs/energy_flags.tsv -->'
END = '<!-- end of what tests/flag_tables.py writes -->'


class Flag(NamedTuple):
    theirs: str
    ours: str
    did: str


def flags() -> list[Flag]:
    lines = SOURCE.read_text(encoding='utf-8').splitlines()
    return [Flag(*line.split('\t')) for line in lines]


def written(page: str) -> str:
    """The page with the table of now."""
    before, _, rest = page.partition(BEGIN)
    after = rest.partition(END)[2]
    rows = ['| theirs | ours | what it does there |', '|---|---|---|']
    rows += [f'| `{flag.theirs}` | {flag.ours} | {flag.did} |' for flag in flags()]
    return '\n'.join([before + BEGIN, *rows, END + after])


if __name__ == '__main__':
    PAGE.write_text(written(PAGE.read_text(encoding='utf-8')), encoding='utf-8')
