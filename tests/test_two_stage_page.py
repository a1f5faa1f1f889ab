"""docs/two_stage.md: it has every term of the framework's document, and what stands in its columns "ours" can be used.

A row names a command, an option or a path of a config, a flag, or a part by its dotted name. Commands are parsed, configs are
composed with all options and paths of the rows, and names are resolved. The blocks are run by ``tests/test_readme.py``.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.command_tables import parsers
from tests.published import SHARED, find
from vq.assembly.compose import checked, compose
from vq.cli import arguments, key_values
from vq.cli.commands import COMMANDS
from vq.cli.static_options import options_of
from vq.launch import main as launcher

PAGE = (Path(__file__).parents[1] / 'docs/two_stage.md').read_text()
STAGE_1, STAGE_2 = 'two_stage/klvae_f16_imagenet_ddp.py', 'two_stage/dit_b_2_klvae_imagenet_ddp.py'
OF_STAGE_2 = ('Stage 2', 'Connector')  # sections whose rows add to the command of stage 2
NOT_RUN = ('`pip install', 'no connector', '2.9.0, the last')  # beginnings of cells without anything to check
TYPES = ('@dataclass', 'Optional[str]', '[str]', 'torch.Tensor', 'Union[Stage1Encodings, Stage2ModelOutput]')  # Python's
TOOLS = {'vq.tools.fid': 'vq.cli.fid_of', 'vq.tools.pairs': 'vq.cli.pairs', 'vq.tools.latents': 'vq.cli.latents'}
TOOLS |= {'vq.tools.prepare_data': 'vq.cli.prepare_data', 'vq.tools.prepare_checkpoints': 'vq.cli.prepare'}
PLACEHOLDERS = {'F': 'weights', 'HOST': 'localhost', 'FOLDER': 'folder', 'PROJECT': 'project', 'RUN': 'run'}
CODE = re.compile(r'`([^`]+)`')

# of the Python entry of the framework, whose code has them and whose document has not
ENTRY = (
    *('-m', '--model-config', '-r', '--result-path', '-l', '--load-path', '-e', '--test-epoch', '-p', '--postfix', '--seed'),
    *('--reload-batch-size', '--world_size', '--local_rank', '--node_rank', '--dist-backend', '--timeout', '--eval', '--exp'),
    *('--resume', '--use_ddp', '--use_autocast', '--do_online_eval', '--fid_gt_act_path', 'XLACACHE_PATH', 'XLA_DISABLE_'),
    *('mask_ratio', 'no_cls', 'train_encoder', 'get_last_layer', 'actual_batch_size', 'accu_step', 'save_ckpt_freq'),
    *('test_freq', 'clip_grad_norm', 'lpips_start', 'disc_start', 'perceptual_weight', 'disc_weight', 'latent dump'),
)


Pairs = dict[str, Any]  # of one piece of code: options, and paths of values


@dataclasses.dataclass(frozen=True)
class Row:
    section: str
    theirs: str
    ours: str

    @property
    def config(self) -> str:
        return STAGE_2 if self.section in OF_STAGE_2 else STAGE_1


def rows() -> list[Row]:
    """The rows of all tables."""
    found, section = [], ''
    for line in PAGE.split('\n'):
        if line.startswith('## '):
            section = line.removeprefix('## ')
        elif line.startswith('| ') and ' | ours |' not in line:
            theirs, ours = (cell.strip() for cell in line.strip('|').split(' | ')[:2])
            found.append(Row(section, theirs, ours))
    return found


ROWS = rows()


def test_every_term_of_the_document_has_a_place() -> None:
    document = find(SHARED / 'reference/systems/000.txt', 'the folder shared').read_text()
    text = re.sub(r'```bash\n\.\n.*?```', '', document, flags=re.DOTALL)  # the tree of its folders
    terms = {term.strip() for term in re.findall(r'(?<!`)`([^`\n]+)`(?!`)', text)}
    terms |= set(re.findall(r'\[\w+(?:\(optional\))?\]', text)) | set(re.findall(r'\./\w+\.sh', text))
    terms |= set(re.findall(r'--\w+', text))
    assert len(terms) > 60
    page = PAGE.replace('\n', ' ')
    missing = sorted(term for term in terms - set(TYPES) if term.partition(' #')[0] not in page)
    assert not missing, missing


def test_every_flag_and_key_of_its_entry_has_a_row() -> None:
    theirs = ' '.join(row.theirs for row in ROWS)
    missing = [name for name in ENTRY if f'{name}' not in theirs]
    assert not missing, missing
    assert 'TBD' in ' '.join(row.theirs for row in ROWS if row.section == 'What it left open')


@pytest.mark.slow
def test_what_stands_in_every_row_can_be_used() -> None:
    """Parses and resolves; options and paths of all rows are composed together, as far as they do not exclude each other."""
    wanted: dict[str, list[Pairs]] = {STAGE_1: [], STAGE_2: []}
    for row in ROWS:
        if row.ours.startswith(NOT_RUN):
            continue
        used = [kind for code in CODE.findall(row.ours) for kind in uses(row, code, wanted)]
        assert used, f'nothing to check in {row}'
    for config, pairs in wanted.items():
        assert len(pairs) > 5
        for options, overrides in together(pairs):
            composed = compose(config, options, overrides, tiny=False)
            checked(composed, 'trainer')
            checked(composed, 'validator')


def uses(row: Row, code: str, wanted: dict[str, list[Pairs]]) -> Iterator[str]:
    """What a piece of code of a row is, if it can be checked; pairs for configs are collected in ``wanted``."""
    if code.startswith(('vq ', 'python -m vq.')):
        read_command(row, shlex.split(code.replace('[', '').replace(']', '')))
        yield 'command'
    elif code.startswith('--'):
        flag = code.split()[0].partition('=')[0]
        assert any(flag in parser_of(name)._option_string_actions for name in commands_of(row)), (row, flag)
        yield 'flag'
    elif code.startswith('.') or key_values.is_pair(code.split()[0]):
        words = code.split() if '(' not in code else [code]
        pairs = dict(key_values.read_pair(word) for word in words if key_values.is_pair(word))
        for word in words:
            assert key_values.is_pair(word) or reaches(composed_once(row.config), word), (row, word)
        assert {key for key in pairs if not key.startswith('.')} <= options_of(row.config).keys(), row
        filled = {key: value for key, value in pairs.items() if str(value) not in PLACEHOLDERS}
        wanted[row.config].append(filled)
        yield 'pair'
    elif re.fullmatch(r'vq(\.\w+)+', code):
        resolve(code)
        yield 'name'


def commands_of(row: Row) -> tuple[str, ...]:
    """The commands that a flag of a row may belong to."""
    return tuple(name for name, _ in parsers() if name in ('train', 'test', 'sample', 'val', 'data latents', 'config'))


@functools.cache
def parser_of(name: str) -> Any:
    return dict(parsers())[name]


@functools.cache
def composed_once(config: str) -> Any:
    return compose(config, {}, {}, tiny=False)


def read_command(row: Row, words: list[str]) -> None:
    """Parse a command line; compose its config if it has one."""
    if words[0] == 'python':
        arguments.parse(importlib.import_module(TOOLS[words[2]]).make_parser(), words[3:])
        return
    words = words[1:]
    while words[0].startswith('--'):  # options of the launcher
        assert words[0].removeprefix('--') in launcher.OPTIONS, (row, words[0])
        words = words[2:]
    assert words[0] in COMMANDS, (row, words)
    known = {**PLACEHOLDERS, 'CONFIG': row.config, 'NAME': 'run', 'NAME_postfix': 'run_postfix'}
    words = [known.get(word, word) for word in words]
    name = ' '.join(words[:2]) if words[0] == 'data' else words[0]
    options = arguments.parse(parser_of(name), words[len(name.split()) :])
    if str(getattr(options, 'config', '')).endswith('.py'):
        given = getattr(options, 'config_options', {})
        assert given.keys() <= options_of(options.config).keys(), (row, given)
        compose(options.config, given, getattr(options, 'override', {}), tiny=True)


def together(pairs: list[Pairs]) -> list[tuple[Pairs, ...]]:
    """Options and paths for as few configs as possible: a key with two values needs two."""
    groups: list[Pairs] = []
    for more in pairs:
        for group in groups:
            if not any(known.startswith(key) or key.startswith(known) for key in more for known in group):
                group |= more
                break
        else:
            groups.append(dict(more))
    return [
        tuple({key: group[key] for key in group if key.startswith('.') == path} for path in (False, True)) for group in groups
    ]


def reaches(config: Any, path: str) -> bool:
    for name in path.strip('.').split('.'):
        if not hasattr(config, 'keys') or name not in config:
            return False
        config = config[name]
    return True


def resolve(name: str) -> None:
    """A module, or an attribute of one; the fields of a record count, too."""
    parts = name.split('.')
    for count in range(len(parts), 0, -1):
        try:
            found: Any = importlib.import_module('.'.join(parts[:count]))
        except ModuleNotFoundError:
            continue
        for part in parts[count:]:
            fields = {**getattr(found, '__annotations__', {}), **getattr(found, '__dataclass_fields__', {})}
            assert hasattr(found, part) or part in fields, f'{name}: there is no {part}'
            found = getattr(found, part, None)
        return
    pytest.fail(f'there is no {name}')
