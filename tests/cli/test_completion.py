"""Completion: what ``vq __complete`` offers, that it executes nothing, and the script of bash in a real bash."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import vq
from tests.sources import imported_by
from vq.cli import completing, completion, options, static_options
from vq.cli.commands import COMMANDS
from vq.core.recipe import Recipe

ROOT = Path(vq.__file__).parents[1]


def offered(*words: str) -> list[str]:
    """The candidates for the last of the words behind ``vq``."""
    return [line.partition('\t')[0] for line in completing.complete(words)]


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """A folder with two runs and a run of a dry run."""
    monkeypatch.chdir(tmp_path)
    for name in ('tok', 'vqgan/8192', 'dry_run/tiny'):
        (tmp_path / 'work_dirs' / name / 'checkpoints' / 'iter_100').mkdir(parents=True)
    (tmp_path / 'work_dirs' / 'tok' / 'checkpoints' / 'iter_20').mkdir()
    (tmp_path / 'work_dirs' / 'tok' / 'val').mkdir()
    (tmp_path / 'photos').mkdir()
    return tmp_path


def test_all_recipes_are_read_as_they_are_declared():
    import vq.recipes as package

    found = {name: item for name, item in vars(package).items() if isinstance(item, Recipe)}
    assert len(found) > 20
    for name, recipe in found.items():
        ours = [option.name for option in static_options.declared(name)]
        typed = {option.name: getattr(option, 'short', ()) for option in recipe.declared}
        assert set(ours) == {*typed, *(other for names in typed.values() for other in names)}, name
        meanings = {option.name: option.meaning for option in recipe.declared}
        assert all(option.meaning == meanings.get(option.name, option.meaning) for option in static_options.declared(name))


@pytest.mark.parametrize(
    'config', ['digits/vq_ema.py', 'digits/ar.py', 'cvqvae/8192_cached_imagenet_ddp.py', 'maskgit/imagenet_ddp.py']
)
def test_options_of_a_config_are_those_that_it_lists(config):
    schema = options.schema(options.recorded(config, {}))
    listed = {name for name, entry in schema['properties'].items() if 'x-recipe' in entry}
    found = static_options.options_of(config)
    assert set(found) >= {name for name in listed if '.' not in name}
    for name, entry in schema['properties'].items():
        kinds = [entry, *entry.get('anyOf', [])]
        choices = {str(value) for kind in kinds for value in kind.get('enum', [])}
        if choices and name in found:
            assert set(found[name].values) == choices - {'None'}, name


def test_every_shipped_config_has_options():
    assert all(static_options.options_of(name) for name, _ in options.shipped() if not name.startswith('configs/models'))


def test_a_config_of_ones_own_is_read_and_not_executed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = "from pathlib import Path\nPath('executed').touch()\n_base_ = ['configs/digits/vq_ema.py']\n"
    (tmp_path / 'mine.py').write_text(text + "depth = _kwargs_.get('depth', 2)\nother = _kwargs_['other']\n")
    assert {'depth=', 'other=', 'codebook_size='} <= set(offered('train', 'tok', 'mine.py', ''))
    assert [path.name for path in tmp_path.iterdir()] == ['mine.py']
    (tmp_path / 'mine.py').write_text('_base_ = [')  # a syntax error, while the file is being written
    assert offered('train', 'tok', 'mine.py', 'cod') == []
    (tmp_path / 'mine.py').write_text("_base_ = ['mine.py']")  # a circle
    assert offered('train', 'tok', 'mine.py', 'cod') == []
    (tmp_path / 'mine.py').write_text('_base_ = []\n_base_ = [*_base_, *more]\nmore = _base_')
    assert offered('train', 'tok', 'mine.py', 'cod') == []


def test_commands_and_options_of_the_launcher():
    assert offered('') == [*COMMANDS] and offered('tra') == ['train'] and offered() == [*COMMANDS]
    assert {'--nproc-per-node', '--max-restarts', '--version'} <= set(offered('--'))
    assert offered('--nproc-per-node', '2', 'tra') == ['train'] and offered('--nproc-per-node', '') == []
    assert offered('trian', '') == [] and offered('completion', '') == ['bash', 'zsh', 'fish']


@pytest.mark.parametrize('name', COMMANDS)
def test_flags_of_each_command(name):
    import importlib

    flags = importlib.import_module(COMMANDS[name].body).make_parser()._option_string_actions
    words = ['x'] if name in ('train', 'val') else []
    assert set(offered(name, *words, '--')) == {flag for flag in flags if flag.startswith('--')}


def test_configs(runs):
    assert 'digits/vq_ema.py' in offered('train', 'new', 'digits/') and 'vq/folder.py' in offered('val', 'tok', 'vq')
    assert 'configs/digits/ar.py' in offered('config', 'configs/d') and ':files' in offered('config', 'x')
    assert not any('interface' in name or name.startswith(('strategies', 'datasets')) for name in offered('config', ''))
    assert 'digits/vq_rotation.py' in offered('config', 'digits/vq_ema.py', '--diff', 'digits/vq_r')


def test_runs_and_checkpoints(runs):
    assert set(offered('train', '')) == {'tok', 'vqgan/8192', 'tiny'}
    assert offered('val', 'vqg') == ['vqgan/8192']
    assert offered('val', 'tok', '--load-from', '') == ['iter_100', 'iter_20']
    assert set(offered('sample', 'gen', '--load-model-from', 't')) == {'tok', 'tiny', ':files'}
    other = runs / 'other' / 'mine' / 'checkpoints'
    other.mkdir(parents=True)
    assert offered('val', '--work-dir', 'other', '') == ['mine'] and offered('val', '--work-dir', '') == [':dirs']


def test_options_of_the_typed_config_and_their_values(runs):
    assert {'codebook_size=', 'strategy=', 'iters='} <= set(offered('train', 'new', 'digits/vq_ema.py', ''))
    assert offered('train', 'new', 'digits/vq_ema.py', 'codebook_size=8', 'iter') == ['iters=']
    assert offered('train', 'new', 'digits/vq_ema.py', '--config-options', 'iter') == ['iters=']
    assert offered('train', 'new', 'digits/ar.py', 'rope=') == ['rope=grid', 'rope=line']
    assert offered('train', 'new', 'digits/ar.py', 'tokenizer_run=t') == ['tokenizer_run=tok', 'tokenizer_run=tiny']
    assert {'strategy=ddp', 'strategy=fsdp'} <= set(offered('train', 'new', 'digits/vq_ema.py', 'strategy='))
    assert offered('train', 'new', 'vq/folder.py', 'data_root=ph') == ['data_root=photos/']
    assert offered('fid', 'folder', 'data_r') == ['data_root=']
    assert offered('train', 'new', 'no_such.py', 'x') == []


def test_choices_of_flags():
    assert offered('train', 'x', 'digits/ar.py', '--weights', '') == ['auto', 'model', 'ema']
    assert offered('convert', 'tam') == ['taming'] and 'cpu' in offered('reconstruct', '--device', '')
    assert offered('train', 'x', '--seed', '') == []


def test_it_imports_the_standard_library_and_vq_only():
    """Its seconds are measured by ``benchmarks/startup.py``."""
    words = ['__complete', 'train', 'new', 'digits/ar.py', 'tok']
    said, packages = imported_by(words)
    assert 'tokenizer=' in said and not packages


def in_bash(folder: Path, line: str) -> list[str]:
    """COMPREPLY of a real bash for a command line with the cursor at its end; ``vq`` is a function that starts this vq."""
    words = line.split(' ')
    broken = [part for word in words for part in breaks(word)]
    script = '\n'.join(
        [
            f'vq() {{ {sys.executable} -m vq "$@"; }}',
            completion.BASH.replace('compopt', 'true compopt'),  # only allowed while a shell completes
            f'COMP_WORDS=({" ".join(repr(word) for word in broken)})',
            f'COMP_CWORD={len(broken) - 1}',
            '_vq',
            'printf "%s\\n" "${COMPREPLY[@]}"',
        ]
    )
    environment = {**os.environ, 'PYTHONPATH': str(ROOT)}
    ended = subprocess.run(['bash', '-c', script], cwd=folder, env=environment, capture_output=True, text=True, timeout=60)
    assert ended.stderr == ''
    return ended.stdout.split('\n')[:-1]


def breaks(word: str) -> list[str]:
    """The words that bash makes of one word: it breaks at = and :."""
    import re

    found = [part for part in re.split(r'([=:]+)', word) if part]
    return found or ['']


@pytest.mark.slow
@pytest.mark.skipif(shutil.which('bash') is None, reason='no bash')
@pytest.mark.parametrize(
    ('line', 'found'),
    [
        ('vq tra', ['train']),
        ('vq val vq', ['vqgan/8192']),
        ('vq train new digits/vq_em', ['digits/vq_ema.py']),
        ('vq train new digits/ar.py rope=', ['grid', 'line']),  # bash replaces what stands behind the sign
        ('vq train new digits/ar.py rope=g', ['grid']),
        ('vq train new digits/ar.py tokenizer_r', ['tokenizer_run=']),
        ('vq train new digits/ar.py rope=line tokenizer_run=vq', ['vqgan/8192']),
        ('vq reconstruct tok phot', ['photos']),
        ('vq train new digits/ar.py --wei', ['--weights']),
        ('vq train new digits/ar.py --weights e', ['ema']),
    ],
)
def test_the_script_of_bash(line, found, runs):
    assert in_bash(runs, line) == found


@pytest.mark.parametrize('shell', ['zsh', 'fish'])
def test_the_scripts_of_other_shells_have_no_syntax_errors(shell, tmp_path):
    if shutil.which(shell) is None:
        pytest.skip(f'no {shell} here')
    (tmp_path / 'script').write_text(completion.SCRIPTS[shell])
    assert subprocess.run([shell, '-n', str(tmp_path / 'script')], capture_output=True).returncode == 0


@pytest.mark.parametrize('shell', completing.SHELLS)
def test_the_command_prints_the_script(shell, capsys):
    assert completion.main([shell]) == 0
    told = capsys.readouterr().out
    assert 'vq __complete' in told and told.endswith('\n')


def test_commands_below_a_command(monkeypatch):
    """``vq data check FOLDER --json``, with a parser of this test."""
    import argparse
    import types

    def make_parser() -> argparse.ArgumentParser:
        parser = argparse.ArgumentParser()
        below = parser.add_subparsers()
        check = below.add_parser('check')
        check.add_argument('folder')
        check.add_argument('--kind', choices=('flat', 'classes'))
        return parser

    body = types.SimpleNamespace(make_parser=make_parser)
    monkeypatch.setattr(completing.importlib, 'import_module', lambda name: body)
    assert offered('data', '') == ['check'] and offered('data', 'check', '--') == ['--help', '--kind']
    assert offered('data', 'check', '') == [':files'] and offered('data', 'check', 'x', '--kind', '') == ['flat', 'classes']
