"""Every example in the help of ``vq`` commands runs as it stands, from an empty folder: parsed here, then run in dry runs."""

from __future__ import annotations

import functools
import importlib
import os
import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.shipped import use_few_digits
from vq.cli import arguments, main
from vq.cli.commands import COMMANDS
from vq.cli.next_steps import DRY
from vq.cli.static_options import packaged
from vq.launch import main as launcher

NOT_RUN = {  # part of an example -> why it is parsed only
    'vq fetch ': 'needs a network',
    'vq convert ': 'needs a published file',
    '--sweep': 'a dry run has no feature network to measure samples with',
    "'iter_{": 'a dry run has other checkpoints',
    'iter_350': 'a dry run has other checkpoints',
    'results.json': 'names results of several experiments',
    'fid.json': 'names results of several experiments',
    'vq compare ': 'names runs and results of several experiments',
    '--classes rocket': 'a dry run has the classes of digits',
    'vq export kl ': 'needs a run of a recipe with the layout of diffusers, which digits do not have',
    'vq export digits_mar ': 'needs a run of MAR, and its tokenizer: see test_latent_modeling_commands.py',
    'vq merge ': 'names runs that no example trains: see tests/io/test_merging.py',
    'vq web': 'serves until it is ended: see tests/web',
    '--classifier': 'a dry run of the classifier is of another size',
}
CLOSING = {  # example -> the commands in its closing lines
    'vq train digits digits/vq_ema.py': ['vq report digits', 'vq train digits_ar digits/ar.py tokenizer_run=digits'],
    'vq train digits_ar digits/ar.py tokenizer_run=digits': ['vq sample digits_ar'],
    'vq train digits_ic ic/digits.py': ['vq report digits_ic'],
    'vq val digits': ['vq report digits'],
    'vq test digits': ['vq report digits'],
    'vq sample digits_ar': ['vq report digits_ar'],
    'vq tokenize digits': ['vq train digits_ar_2 digits/ar.py tokenizer_run=digits'],
    'vq reconstruct work_dirs/digits_ar_sample/samples/000000.png --load-model-from digits': ['vq report digits'],
}
IN_A_DRY_RUN = {'work_dirs/': 'work_dirs/dry_run/', 'iter_700': 'iter_8'}  # where a dry run writes


def examples() -> list[str]:
    """The command lines below ``examples:`` in the help of each command, without remarks and redirections, in order."""
    found = []
    for command in COMMANDS.values():
        if importlib.util.find_spec(command.body) is None:
            continue
        epilog = importlib.import_module(command.body).make_parser().epilog or ''
        block = re.search(r'^examples:\n((?:  .*\n)+)', epilog.replace('\\\n', ' '), flags=re.MULTILINE)
        assert block is not None, command.body
        for line in block[1].splitlines():
            text = re.split(r'\s{2,}|\s>', line.strip())[0]
            found.append(text)
    return found


@functools.cache
def all_examples() -> tuple[str, ...]:
    return tuple(examples())


def test_each_command_has_examples_in_the_form_of_vq():
    named = {shlex.split(text)[0] for text in all_examples()}
    assert named == {'vq'}
    assert len(all_examples()) > 2 * (len(COMMANDS) - 4)


@pytest.mark.parametrize('text', all_examples())
def test_the_parsers_accept_each_example(text):
    words = shlex.split(text)[1:]
    options = launcher.read_options(words, main.make_parser())
    name, *rest = options.command
    arguments.parse(importlib.import_module(COMMANDS[name].body).make_parser(), rest)


@pytest.mark.parametrize('text', [text for text in all_examples() if '.py' in text])
def test_configs_in_examples_exist(text):
    for word in shlex.split(text):
        if re.fullmatch(r'[\w/]+\.py', word) and '/' in word:
            assert (packaged() / word.removeprefix('configs/')).is_file()


@pytest.mark.slow
def test_examples_run_in_order_from_an_empty_folder(tmp_path, monkeypatch, capsys, warm_programs):
    """In this process, to import torch once, with fewer digits; ranks that a launcher starts begin warm. A folder ``photos``
    with two classes is there, as the data examples say.
    """
    use_few_digits(monkeypatch)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('DRY_RUN', 'True')
    monkeypatch.setattr(sys, 'path', [*sys.path])
    monkeypatch.setattr(sys, 'executable', str(warm_programs / 'python'))
    stream = np.random.default_rng(0)
    for kind in ('rocket', 'boat'):
        (tmp_path / 'photos' / kind).mkdir(parents=True)
        for number in range(8):
            pixels = stream.integers(0, 256, (72, 80, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / 'photos' / kind / f'{number}.png')
    run = []
    for text in all_examples():
        if any(part in f'{text} ' for part in NOT_RUN if part != 'vq fetch ' or text != 'vq fetch'):
            continue
        words = [
            functools.reduce(lambda word, pair: word.replace(*pair), IN_A_DRY_RUN.items(), word) for word in shlex.split(text)
        ]
        words = [name for word in words for name in (sorted(map(str, Path().glob(word))) if '*.' in word else [word])]
        monkeypatch.setattr(sys, 'argv', words)
        before = dict(os.environ)
        try:
            code = main.main()
        except SystemExit as end:
            code = end.code
        finally:  # a launcher leaves variables for its ranks
            os.environ.clear()
            os.environ.update(before)
        said = capsys.readouterr()
        assert not code, f'{text}\n{said.out}\n{said.err}'
        run.append(text)
        if text in CLOSING:
            lines = [f'{" " * 6}{line}' for line in (*CLOSING[text], DRY)]
            assert said.out.endswith('\n'.join([f'next: {lines[0].strip()}', *lines[1:], ''])), f'{text}\n{said.out}'
    assert set(CLOSING) <= set(run) and len(run) > 20
