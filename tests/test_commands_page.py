"""docs/commands.md: its tables are those of the parsers, and every flag that a document shows exists."""

from __future__ import annotations

import re
import shlex

import pytest

from tests.command_tables import PAGE, flags_of, parsers, written
from tests.snippets import ROOT
from vq.cli.commands import COMMANDS
from vq.launch import main as launcher

DOCUMENTS = ['README.md', *sorted(str(path.relative_to(ROOT)) for path in (ROOT / 'docs').glob('*.md'))]
LAUNCHER = {f'--{name}' for name in launcher.OPTIONS} | {'--dry', '--version', '--help'}


def flags() -> dict[str, set[str]]:
    """Command -> its flags, with those of the commands below it."""
    found: dict[str, set[str]] = {}
    for name, parser in parsers():
        own = {flag for action in flags_of(parser) for flag in action.option_strings}
        found.setdefault(name.partition(' ')[0], {'--help', '-h'}).update(own)
    return found


def test_the_tables_are_those_of_the_parsers():
    """If this fails: python -m tests.command_tables"""
    page = PAGE.read_text(encoding='utf-8')
    assert page == written(page)


def test_every_command_and_every_flag_is_in_the_tables():
    page = PAGE.read_text(encoding='utf-8')
    for name in COMMANDS:
        assert f'| `vq {name}` |' in page
    for name, parser in parsers():
        part = page.partition(f'\n### `vq {name}')[2].partition('\n### ')[0]
        for action in flags_of(parser):
            assert f'| `{action.option_strings[-1]}' in part, (name, action.option_strings)
            assert action.help, f'{name} {action.option_strings} says nothing'


@pytest.mark.parametrize('document', DOCUMENTS)
def test_every_flag_of_vq_in_a_document_exists(document):
    """Lines ``vq COMMAND ... --flag`` in blocks and in inline code, with continued lines."""
    known, shown = flags(), 0
    text = (ROOT / document).read_text(encoding='utf-8').replace('\\\n', ' ')
    lines = [line.removeprefix('$ ') for line in text.splitlines()] + re.findall(r'`(vq [^`]+)`', text.replace('\n', ' '))
    for line in lines:
        if not line.startswith('vq '):
            continue
        try:
            words = shlex.split(line.partition('   ')[0].partition(' > ')[0])[1:]
        except ValueError:  # prose
            continue
        command = next((word for word in words if word in COMMANDS), None)
        if command is None or command not in known:
            continue
        place = words.index(command)
        late = {word.partition('=')[0] for word in words[place:] if re.fullmatch(r'--[a-z][\w-]*(=.*)?', word)}
        early = {word.partition('=')[0] for word in words[:place] if word.startswith('--')}
        assert late <= known[command] and early <= LAUNCHER, f'{document}: {line}'
        shown += len(late) + len(early)
    assert shown or document != 'docs/commands.md'
