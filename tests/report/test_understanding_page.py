"""The page that compares tokenizers of pixels and of features: its table, its verdicts, and what it refuses."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tests.report.support import Reader, needs_nothing_else
from vq.core.errors import RunFailure
from vq.demo import chains
from vq.demo.chains import CHAINS, JUDGE, TEACHER, is_done, note, plan
from vq.demo.understanding import check_equal, complete
from vq.report.facts import Drawn
from vq.report.understanding import CLAIMS, COLUMNS, Side, Understanding, build_page, sentence

PIXELS = dict(psnr=31.25, reconstructed_fd=0.5, reconstructed_recognised=0.99, codebook_usage=1.0, probe=0.75, token_loss=3.5,
              token_bits=80.75, agreement=0.5, fd=4.5, within=0.75)  # fmt: skip
FEATURES = PIXELS | dict(psnr=20.125, probe=0.875, token_loss=2.5, agreement=0.75, fd=5.25)


def side(name: str, of_features: bool, **changed: float) -> Side:
    results = (FEATURES if of_features else PIXELS) | changed
    pictures = np.zeros((2, 8, 8, 3), np.uint8)
    drawn = Drawn(pictures, np.array([0, 1]), np.array([0, 0]), results)
    lines = [dict(kind='train', step=4, cross_entropy=4.0), dict(kind='eval', step=4, **{'loss/cross_entropy': 4.5})]
    return Side(name, 'features' if of_features else 'pixels', not of_features, results, pictures, drawn, lines, 1500, 30.0)


def facts(**changed: float) -> Understanding:
    sides = {'a': side('A', False), 'b': side('B', False, **changed), 'c': side('C', True), 'd': side('D', True)}
    pictures = np.zeros((2, 8, 8, 3), np.uint8)
    accuracy = {'teacher': 0.9, 'judge': 0.95}
    return Understanding(
        sides, 16, 256, ['0', '1'], pictures, 360, 1437, accuracy, 0.25, ['python -m vq.train x y.py'], [('cores', '2')], False
    )


def test_the_page_is_complete():
    page = build_page(facts()).render()
    reader = Reader(page)
    assert needs_nothing_else(page)
    assert reader.ids == ['results', 'claims', 'reconstructions', 'drawn', 'losses', 'commands']
    assert reader.tags.count('img') == 2 * 5 + 4, 'two digits, each decoded by four tokenizers, and four sheets'
    assert reader.tags.count('svg') == 2
    for column in COLUMNS.values():
        assert column.words in reader.text
    for shown in ('31.25 31.25 20.12 20.12', '75.0% 75.0% 87.5% 87.5%', '3.500 3.500 2.500 2.500', '80.8 80.8 80.8 80.8'):
        assert shown in reader.text


def test_findings_are_told_whether_they_agree_with_the_paper_or_not():
    """The means here: probe, cross-entropy, agreement and PSNR as in the paper; FD 5.25 against 4.5 is not."""
    said = sentence(facts()).splitlines()[-len(CLAIMS) :]
    assert [line.startswith('as in the paper') for line in said] == [True, True, True, False, True]
    assert said[3].endswith('Here: 5.25 against 4.50.')
    assert 'Not as in the paper : What they draw' in Reader(build_page(facts()).render()).text
    # the mean of both tokenizers of pixels counts: 0.75 and 1 are as good as 0.875 twice, so that the claim does not hold
    assert not CLAIMS[0].verdict(facts(probe=1.0))[0]


def tokenizer(shape: tuple[int, ...], codes: int) -> SimpleNamespace:
    return SimpleNamespace(token_shape=shape, codebook_size=codes)


@pytest.mark.parametrize('other', [((4, 4), 64), ((8, 8), 256)])
def test_tokenizers_with_other_tokens_or_codes_are_refused(other):
    check_equal({'a': tokenizer((4, 4), 256), 'b': tokenizer((4, 4), 256)}, 256)
    with pytest.raises(RunFailure, match=r'not comparable: a: tokens \(4, 4\), 256 codes; b: tokens'):
        check_equal({'a': tokenizer((4, 4), 256), 'b': tokenizer(*other)}, 256)
    with pytest.raises(RunFailure):
        check_equal({'a': tokenizer(*other), 'b': tokenizer(*other)}, 256)


@pytest.mark.parametrize('key', COLUMNS)
def test_a_missing_figure_is_a_failure(key):
    complete('vqgan', PIXELS)
    for broken in (PIXELS | {key: math.nan}, {name: value for name, value in PIXELS.items() if name != key}):
        with pytest.raises(RunFailure, match=f'vqgan has no figure for {key}'):
            complete('vqgan', broken)


def test_all_tokenizers_get_the_same_probe_and_generator():
    """The commands differ in names of runs alone; the judge is not the teacher."""
    runs, told = Path('work_dirs'), {}
    for name in CHAINS:
        commands = plan(name, runs, 5, [])
        assert all(words[-1] != '--auto-resume' or words[-3:-1] == ['--seed', '5'] for _, words in commands)
        told[name] = [
            [word.replace(f'{name}_decoder', name).replace(name, 'X') for word in words]
            for module, words in commands
            if words[1].endswith(('ar.py', 'probe.py'))
        ]
    assert len(told['vqgan']) == 3 and all(found == told['vqgan'] for found in told.values())
    [(_, teacher)], [(_, judge)] = plan(TEACHER, runs, 5, []), plan(JUDGE, runs, 5, [])
    assert teacher[0] != judge[0] and '5' in teacher and '6' in judge


def test_a_part_is_done_if_these_commands_ended_and_their_runs_are_there(tmp_path):
    commands = plan(TEACHER, tmp_path, 5, [])
    run = tmp_path / chains.FOLDER / TEACHER
    run.mkdir(parents=True)
    assert not is_done(TEACHER, tmp_path, commands)
    note(TEACHER, tmp_path, commands)
    assert is_done(TEACHER, tmp_path, commands)
    assert not is_done(TEACHER, tmp_path, plan(TEACHER, tmp_path, 6, [])), 'of another seed'
    run.rmdir()
    assert not is_done(TEACHER, tmp_path, commands)
