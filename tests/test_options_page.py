"""docs/options.md lists the options of every recipe, and every option that a document or a config header shows exists."""

from __future__ import annotations

import ast
import functools
import re
import shlex
from collections.abc import Iterator

import pytest

from tests.snippets import ROOT
from tools import option_pages
from vq.cli.commands import COMMANDS
from vq.cli.options import recorded
from vq.core.config import packaged_configs
from vq.core.errors import ConfigError
from vq.core.options import Declared

DOCUMENTS = [
    *map(str, ['README.md', 'CONTRIBUTING.md', 'CHANGELOG.md']),
    *sorted(f'docs/{p.name}' for p in (ROOT / 'docs').glob('*.md')),
]
DOORS = {f'-m {command.door}' for command in COMMANDS.values() if command.door} | {f'-m vq {name}' for name in COMMANDS}
PAIR = re.compile(r'([a-z_][\w.]*)(?:=|::?)(?!/)')
INLINE = re.compile(r'`([a-z_]\w*)::[^`\s]+`')  # two colons mean nothing else; `key` stands for any; `aten::` is torch's


def test_the_page_is_up_to_date() -> None:
    assert option_pages.PAGE.read_text() == option_pages.page(), 'write it again: python tools/option_pages.py'


@pytest.mark.slow
def test_the_page_has_every_option_of_every_shipped_config() -> None:
    """By another way than that of the page: the records of composed configs."""
    page, seen = option_pages.PAGE.read_text(), 0
    for path in sorted(packaged_configs().rglob('*.py')):
        for option in _options(str(path)).values():
            part = page.partition(f'\n## {option.owner}\n')[2].partition('\n## ')[0]
            assert f'| `{option.name}`' in part and option.meaning.replace('|', '\\|') in part, (path, option.name)
            seen += 1
    assert seen > 500


@pytest.mark.parametrize('document', DOCUMENTS)
def test_every_option_of_a_command_in_a_document_exists(document: str) -> None:
    wrong = [f'{document}: {line}: {key}' for line in commands((ROOT / document).read_text()) for key in unknown(line)]
    assert not wrong, '\n'.join(wrong)


@pytest.mark.slow
def test_every_option_in_the_header_of_a_config_exists() -> None:
    wrong, seen = [], 0
    for path in sorted(packaged_configs().rglob('*.py')):
        header = ast.get_docstring(ast.parse(path.read_text())) or ''
        for line in commands(header):
            seen += 1
            wrong += [f'{path}: {line}: {key}' for key in unknown(line)]
        listed = re.search(r'^Options: (.*?)(?:\n\n|\Z)', header, re.MULTILINE | re.DOTALL)
        names = re.findall(r'``([a-z_]\w*)``', listed[1]) if listed else []
        wrong += [f'{path}: {name}' for name in names if name not in known_to(str(path))]
    assert not wrong and seen > 60, '\n'.join(wrong)


@pytest.mark.parametrize('document', [name for name in DOCUMENTS if name != 'CHANGELOG.md'])
def test_every_setting_in_the_text_of_a_document_exists(document: str) -> None:
    """Words ``name::value`` in inline code."""
    text = re.sub(r'^```.*?^```$', '', (ROOT / document).read_text(), flags=re.MULTILINE | re.DOTALL)
    known = {'key', 'aten', *(name for each in option_pages.recipes().values() for name in each.names)}
    wrong = sorted(set(INLINE.findall(text)) - known)
    assert not wrong, f'{document}: {wrong}'


@pytest.mark.parametrize(
    ('line', 'wrong'),
    [
        ('vq train a digits/vq_ema.py wdith=8 width=8', ['wdith']),
        ('auto_torchrun -m vq.train a configs/digits/vq_ema.py --config-options widht:8 --seed 3', ['widht']),
        ('vq train a digits/ar.py tokenizer=b width=8 it.widht=4', ['it.widht']),
        ("vq train a mine.py lr=3 nonsense::x '.trainer.iters=4'", ['nonsense']),
    ],
)
def test_the_check_can_fail(line: str, wrong: list[str]) -> None:
    assert unknown(line) == wrong


# commands in a text, and their options


def commands(text: str) -> Iterator[str]:
    """Lines of code and inline code that start a command of vq."""
    text = text.replace('\\\n', ' ')
    for line in [*text.splitlines(), *re.findall(r'`+(vq [^`]+)`+', text.replace('\n', ' '))]:
        line = line.strip().removeprefix('$ ')
        if line.startswith(tuple(f'vq {name} ' for name in COMMANDS)) or any(f'{door} ' in line for door in DOORS):
            yield line


def unknown(line: str) -> list[str]:
    """Keys of a command that its config does not have."""
    try:
        words = shlex.split(line.partition(' #')[0].partition(' > ')[0].partition(' || ')[0])
    except ValueError:  # prose
        return []
    places = [place for place, word in enumerate(words) if word.endswith('.py') and not PAIR.match(word)]
    if not places:
        return []
    config, keys, mode = words[places[-1]], [], 'pairs'
    for word in words[places[-1] + 1 :]:
        if word.startswith('--'):
            mode = 'pairs' if word == '--config-options' else 'value'
        elif mode == 'pairs' and (found := PAIR.match(word)):
            keys.append(found[1])
    return [key for key in keys if key not in known_to(config) and key not in words]


@functools.cache
def known_to(config: str) -> frozenset[str]:
    """Names of options of a shipped config, and of the configs that it names. Of another file: all options."""
    path = packaged_configs() / config.removeprefix('configs/')
    if not path.is_file():
        return frozenset(name for each in option_pages.recipes().values() for name in each.names)
    try:
        record = recorded(str(path), {})
    except ConfigError:  # it has a required option; its tokenizer can be any
        called = [
            each
            for name, each in option_pages.recipes().items()
            if str(path.relative_to(packaged_configs())) in CALLED.get(name, [])
        ]
        return frozenset(name for each in called for name in each.names)
    found = set(record.known())
    for side, other in record.others.items():
        found |= other.known() | {f'{side}.{name}' for name in other.known()}
    return frozenset(found)


CALLED = option_pages.configs_of()


@functools.cache
def _options(config: str) -> dict[str, Declared]:
    """Those of a composed config; a config with a required option does not compose alone."""
    try:
        return {option.name: option for option in recorded(config, {}).declared.values()}
    except ConfigError:
        return {}
