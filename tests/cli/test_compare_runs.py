"""``vq compare A B``: runs side by side on a page and on the terminal."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

import vq
from tests.cli.test_compare import row
from tests.report.support import Reader, needs_nothing_else
from tests.runners.support import everything_in, said_by
from vq.cli.compare import main
from vq.cli.train import main as train
from vq.core.random import python_stream
from vq.data.datasets.digits import DigitsDataset
from vq.report.comparison_page import differences


def test_differences_of_configs_are_leaves_by_path() -> None:
    a = {'trainer': {'iters': 8, 'callbacks': [{'type': 'Log'}, {'type': 'Git'}], 'betas': (0.9, 0.99)}, 'tiny': {'x': 1}}
    b = {'trainer': {'iters': 9, 'callbacks': [{'type': 'Log', 'interval': 5}], 'betas': (0.9, 0.99)}, 'tiny': {'x': 2}}
    assert differences({'a': a, 'b': b}) == [
        ('.trainer.callbacks[0].interval', ['', '5']),
        ('.trainer.callbacks[1].type', ["'Git'", '']),
        ('.trainer.iters', ['8', '9']),
    ]
    assert differences({'a': a, 'b': a}) == []
    assert differences({'a': {'x': 1}, 'b': {'x': 1.0}, 'c': {'x': True}}) == [('.x', ['1', '1.0', 'True'])]


@pytest.mark.slow
def test_tokenizers_side_by_side(among_runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The page and the terminal show the differences of the configs, the same images through both, and what is better."""
    assert train(['tok2', 'digits/vq_ema.py', '--override', '.trainer.iters:12', '.trainer.optimizers.tokenizer.lr:1e-3']) == 0
    capsys.readouterr()
    before = everything_in(among_runs)
    said = said_by(capsys, main, 'tok', 'tok2', 'kl', '--images', '5')
    assert everything_in(among_runs) == before, 'runs are only read'
    html = Path('work_dirs/compare/tok_vs_tok2_vs_kl.html').read_text()
    assert needs_nothing_else(html)
    page = Reader(html)
    assert page.ids == ['configs', 'figures', 'reconstructions', 'curves', 'cost', 'commands']
    assert '.trainer.iters 8 12 8' in page.text and row(said, '.trainer.iters') == ['8', '12', '8']
    assert ".trainer.model.tokenizer.type 'VQGAN' 'VQGAN' 'KLAutoencoder'" in page.text
    assert sum(': input' in words for words in page.pictures) == 5
    digits = DigitsDataset('validation')
    place = {digits.id_of(index): index for index in range(len(digits))}
    for name in ('tok', 'tok2', 'kl'):
        shown = {words: made for words, made in page.pictures.items() if re.search(rf': {name}(,|$)', words)}
        assert len(shown) == 5
        images = [digits.load(place[words.partition(':')[0]], python_stream('test'))['image'] for words in shown]
        # in one batch and contiguous, as on the page: others round differently
        given = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()
        expected = vq.load(name).reconstruct(given).permute(0, 2, 3, 1).numpy()
        for made, wanted in zip(shown.values(), expected, strict=True):
            np.testing.assert_array_equal(made, wanted)
    # tok was validated on all images; the two others have the evaluation of their training, on 20: these two compare
    assert 'samples is' in said
    steps = [json.loads(line) for line in (among_runs / 'tok2/log.jsonl').read_text().splitlines()]
    psnr = [line['psnr'] for line in steps if line['kind'] == 'eval'][-1]
    assert f'{psnr:.5g}' in said


@pytest.mark.slow
def test_generators_draw_the_same_classes_with_the_same_seed(among_runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run and its copy by another name: equal configs, equal pictures, equal figures, none of them marked better."""
    copy = str(among_runs / 'gen')
    said = said_by(capsys, main, 'gen', copy, '--images', '4', '--output', 'page.html')
    assert 'The configs are equal.' in said
    page = Reader(Path('page.html').read_text())
    own = {words.partition(':')[0]: made for words, made in page.pictures.items() if words.endswith(': gen')}
    other = {words.partition(':')[0]: made for words, made in page.pictures.items() if words.endswith(copy)}
    assert list(own) == list(other) == ['0', '2', '5', '7'], 'evenly spaced classes'
    for name, made in own.items():
        np.testing.assert_array_equal(made, other[name])
    assert len({made.tobytes() for made in own.values()}) > 1


@pytest.mark.slow
def test_runs_beside_results_files(among_runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The figures of a run are those of its results file: in one group, and equal."""
    file = among_runs / 'tok/val/iter_8/results.json'
    said = said_by(capsys, main, 'tok', str(file), '--images', '2')
    first, second = row(said, 'psnr')
    assert first == second and said.count('images and codes') == 1


def test_a_run_alone_is_refused(tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    assert 'nothing to compare it with' in said_by(capsys, main, 'tok', code=2)
    assert "there is no run, checkpoint or file 'tok'" in said_by(capsys, main, 'tok', 'kl', code=2)
    assert not list(tmp_path.iterdir())
