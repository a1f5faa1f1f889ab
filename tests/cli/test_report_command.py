"""``vq report NAME``: a page for every kind of run, which only reads the run."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import vq
from tests.report.support import Reader, needs_nothing_else
from tests.runners.support import commands_here, everything_in, said_by, train
from vq.cli.report import main
from vq.core.random import python_stream
from vq.data.datasets.digits import DigitsDataset
from vq.io import history, run_lock
from vq.report.opening import Asked, open_run

pytestmark = pytest.mark.slow


def page_of(run: Path) -> Reader:
    html = (run / 'report.html').read_text()
    assert needs_nothing_else(html)
    return Reader(html)


def next_of(said: str) -> str:
    """The command of the closing line."""
    return re.search(r'^next: (.*)$', said, re.MULTILINE)[1]


def test_the_page_of_a_tokenizer(among_runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Figures are those of ``vq val``, pictures those of ``vq.load``, and nothing but the page is written."""
    run = among_runs / 'tok'
    before = everything_in(run)
    said = said_by(capsys, main, 'tok', '--images', '10')
    after = everything_in(run)
    assert after.pop('report.html') and after == before
    page = page_of(run)
    assert page.ids == ['reconstructions', 'metrics', 'training', 'tokens', 'usage', 'codes', 'results', 'cost', 'commands']
    measured = json.loads((run / 'val/iter_8/results.json').read_text())['results']
    ours, coarse = map(float, re.search(r'PSNR, dB (\S+) (\S+)', page.text).groups())
    assert ours == pytest.approx(measured['psnr'], abs=0.006)
    assert f'PSNR {measured["psnr"]:.2f} dB (k-means on raw patches: {coarse:.2f} dB)' in said
    tokenizer, digits = vq.load('tok'), DigitsDataset('validation')
    for index in range(len(digits)):
        sample = digits.load(index, python_stream('test'))
        name = next((words for words in page.pictures if f'{sample["id"]}: reconstruction' in words), None)
        if name is None:
            continue
        image = torch.from_numpy(sample['image'].copy()).permute(2, 0, 1)[None]
        made = tokenizer.reconstruct(image)[0].permute(1, 2, 0).numpy()
        np.testing.assert_array_equal(page.pictures[name], made)
    assert sum(': reconstruction' in words for words in page.pictures) == 10
    assert 'python -m vq.train tok digits/vq_ema.py' in page.text.replace('vq train', 'python -m vq.train')
    assert next_of(said) == 'vq train tok_ar digits/ar.py tokenizer_run=tok'


def test_the_page_of_a_generator(among_runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = said_by(capsys, main, 'gen', '--images', '10')
    page = page_of(among_runs / 'gen')
    assert page.ids == ['drawn', 'generated', 'nearest', 'completions', 'token_statistics', 'training', 'cost', 'commands']
    assert re.search(r'distinct token grids \d+ \d+ \d+', page.text), 'guided, unguided, held out'
    assert sum('training image digits/' in words for words in page.pictures) >= 30
    assert next_of(said) == 'vq sample gen'


def test_a_classifier_measures_reconstructions_and_samples(among_runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Held-out images are nearer to the training images than what a generator draws after 8 steps, and than random codes."""
    said = said_by(capsys, main, 'tok', 'gen', '--classifier', 'ic', '--images', '10')
    assert "FD, classifier's features" in page_of(among_runs / 'tok').text
    text = page_of(among_runs / 'gen').text
    *drawn, real = map(
        float, re.search(r"FD to training images, classifier's features (\S+) (\S+) (\S+) (\S+)", text).groups()
    )
    assert len(drawn) == 3 and real < min(drawn)
    assert 'random codes' in text and 'FD to held-out images' in said


def test_the_page_of_a_classifier(among_runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = said_by(capsys, main, 'ic')
    top1 = json.loads((among_runs / 'ic/val/iter_8/results.json').read_text())['results']['top1']
    assert f'Accuracy {100 * top1:.1f} % on 180 images of validation' in said
    page = page_of(among_runs / 'ic')
    assert page.ids[0] == 'confusion' and f'accuracy, held out {100 * top1:.1f}' in page.text


def test_a_continuous_tokenizer_has_latents_in_place_of_tokens(among_runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = said_by(capsys, main, 'kl', '--images', '4')
    assert page_of(among_runs / 'kl').ids == ['reconstructions', 'metrics', 'training', 'latents', 'cost', 'commands']
    assert next_of(said) == 'vq val kl', 'it has no tokens for a generator'


def test_a_run_whose_images_have_gone_says_what_is_left_out(tmp_path: Path, monkeypatch, capsys) -> None:
    """And a run of photos names the recipe of photos as the next step."""
    rng = np.random.default_rng(0)
    for split, count in (('train', 8), ('val', 4)):
        for number in range(count):
            (tmp_path / 'photos' / split).mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(tmp_path / f'photos/{split}/{number}.png')
    monkeypatch.chdir(tmp_path)
    with commands_here(dry=False):
        options = ['--config-options', 'dataset::folder', 'data_root::photos', 'image_size:32', 'batch_size:4', 'iters:2']
        fast = ['--override', '.trainer.optimizers.tokenizer.schedule.warmup:0']
        assert train(str(tmp_path), 'tok', 'digits/vq_ema.py', *options, *fast) == 0
        said_by(capsys, main, 'tok', '--images', '3')
        page = page_of(tmp_path / 'work_dirs/tok')
        assert sum(': reconstruction' in words for words in page.pictures) == 3
        assert 'k-means on raw patches: 128 patches of training images are few for 256 codes' in page.text
        shutil.rmtree(tmp_path / 'photos')
        said = said_by(capsys, main, 'tok')
    page = page_of(tmp_path / 'work_dirs/tok')
    assert page.ids == ['left_out', 'training', 'codes', 'cost', 'commands']
    assert 'held-out images: ' in page.text and 'training images: ' in page.text and 'photos' in page.text
    assert next_of(said) == 'vq train gen photos/ar.py tokenizer=tok'


def test_opening_a_run_executes_nothing_in_it(tmp_path: Path, monkeypatch, capsys) -> None:
    (tmp_path / 'of_a_stranger.py').write_text('import pathlib; pathlib.Path("executed").touch()\n')
    (tmp_path / 'mine.py').write_text("_base_ = ['digits/vq_ema.py']\ncustom_imports = ['of_a_stranger']\n")
    monkeypatch.chdir(tmp_path)
    with commands_here():
        assert train(str(tmp_path), 'tok', 'mine.py') == 0
        (tmp_path / 'executed').unlink()
        del sys.modules['of_a_stranger']
        said = said_by(capsys, main, 'tok', code=2)
        assert 'of_a_stranger' in said and said.splitlines()[-1].endswith('tok --trust')
        assert not (tmp_path / 'executed').exists() and not (tmp_path / 'work_dirs/dry_run/tok/report.html').exists()
        said_by(capsys, main, 'tok', '--images', '2', '--trust')
    assert (tmp_path / 'executed').exists()


def test_a_page_beside_a_training_says_so(among_runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with run_lock.held(among_runs / 'tok', None):
        said_by(capsys, main, 'tok', '--images', '2')
    assert 'This run is still training: the page shows step' in page_of(among_runs / 'tok').text


def test_a_checkpoint_that_the_training_deletes_meanwhile(among_runs: Path) -> None:
    """The next one is opened; an error that is not about a deleted checkpoint is raised at once."""
    folder = among_runs / 'tok/checkpoints'
    step, newest = history.list_complete(folder)[-1]
    shutil.copytree(newest, folder / 'iter_99')
    (folder / 'latest').write_text('iter_99\n')
    tried = []

    def load(run):
        tried.append(run.checkpoint.name)
        if run.checkpoint.name == 'iter_99':
            shutil.rmtree(run.checkpoint)
            (folder / 'latest').write_text(f'iter_{step}\n')
            raise OSError('gone')
        return 'loaded'

    run, model = open_run('tok', Asked(), load)
    assert tried == ['iter_99', f'iter_{step}'] and model == 'loaded' and run.checkpoint.name == newest.name

    def fail(run):
        tried.append('again')
        raise OSError('broken')

    with pytest.raises(OSError, match='broken'):
        open_run('tok', Asked(), fail)
    assert tried.count('again') == 1


@pytest.mark.parametrize(
    ('words', 'expected'),
    [
        (['tok', 'kl', '--output', 'a.html'], '--output names one file, and there are 2 runs'),
        (['tko'], "there is no run, checkpoint or file 'tko'"),
        (['tok', '--images', '0'], '--images is 0'),
        (['tok', '--classifier', 'kl'], 'has no features of whole images'),
    ],
)
def test_bad_usage_writes_nothing(words, expected, among_runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert expected in said_by(capsys, main, *words, code=2)
    assert not list(among_runs.glob('*/report.html')) and not list(Path.cwd().glob('*.html'))


def test_a_file_needs_an_output(among_runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A checkpoint folder has its run; ``--output`` puts the page anywhere, atomically."""
    (newest, *_) = [path for _, path in reversed(history.list_complete(among_runs / 'tok/checkpoints'))]
    said_by(capsys, main, str(newest), '--images', '2', '--output', 'pages/half.html')
    assert 'Reconstructions' in Reader(Path('pages/half.html').read_text()).text
    assert [entry.name for entry in Path('pages').iterdir()] == ['half.html']
