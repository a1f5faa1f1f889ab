"""``make demo``: its page, a second run, and the quality of its tokenizer and generator."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import re
import shlex
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.report.support import Reader, needs_nothing_else
from tests.runners.support import commands_here
from tests.sources import ROOT
from tests.warm import programs
from vq.cli.demo import BODIES
from vq.demo.beside import Beside
from vq.io.shards import ShardSet

pytestmark = pytest.mark.slow


def start(folder: Path, arguments: Sequence[str], dry: bool) -> subprocess.CompletedProcess[str]:
    """``python ARGUMENTS`` in a folder that is not the checkout."""
    return subprocess.run(
        [programs() / 'python', *arguments],
        cwd=folder,
        env={**os.environ, 'PYTHONPATH': str(ROOT), 'DRY_RUN': str(dry), 'OMP_NUM_THREADS': '1'},
        capture_output=True,
        text=True,
        check=False,
    )


def run_demo(folder: Path, *arguments: str, dry: bool) -> str:
    """Run the demo. Returns its output."""
    done = start(folder, ['-m', 'vq.demo', *arguments], dry)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


@pytest.fixture(scope='module')
def dry_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder with a finished dry run of the demo, and its output."""
    folder = tmp_path_factory.mktemp('demo')
    return folder, run_demo(folder, dry=True)


def run_here(folder: Path, module: str, *words: str) -> tuple[int, str, str]:
    """A dry ``python -m MODULE WORDS`` in this process, which has imported everything: exit code and output."""
    out, errors = io.StringIO(), io.StringIO()
    body = importlib.import_module(BODIES.get(module, 'vq.cli.demo'))
    with contextlib.chdir(folder), commands_here(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
        code = body.main(list(words))
    return code, out.getvalue(), errors.getvalue()


def check_page(folder: Path, said: str) -> Reader:
    """The page is complete, and at the path of the last lines."""
    place, address = said.splitlines()[-2:]
    assert '\nTry these models on a page in the browser: python -m vq.web' in said
    page = folder / re.fullmatch(r'Open the report in a browser: (\S+)', place)[1]
    assert address == page.as_uri()
    html = page.read_text()
    assert needs_nothing_else(html)
    assert 'nan' not in re.findall(r'[\d.a-z]+', re.sub(r'base64,[^"]*', '', html)), 'a figure is missing'
    reader = Reader(html)
    assert reader.ids == [
        'reconstructions', 'metrics', 'training', 'tokens', 'usage', 'codes',
        'drawn', 'generated', 'nearest', 'completions', 'commands',
    ]  # fmt: skip
    of_tokenizer = 4 * 30 + 10 + 2  # 30 digits in four pictures each, one of each class, two sheets of codes
    of_generator = 2 + 15 * 4 + 10 * 4  # two sheets, 15 with their neighbours, 10 completions
    assert reader.tags.count('img') == of_tokenizer + of_generator
    assert reader.tags.count('svg') == 6 + 10 + 2, 'charts, token maps and usage'
    for line in re.findall(r'^\$ (python .*)$', said, re.MULTILINE):
        assert line in reader.text, 'every command stands on the page'
    return reader


def test_a_dry_run_is_complete(dry_run):
    folder, said = dry_run
    assert 'Dry run' in check_page(folder, said).text
    for name, count in (('demo_tokenize', 180), ('demo_tokenize_train', 1437)):
        tokens = ShardSet(folder / 'work_dirs/dry_run' / name / 'tokens', verify=True)
        assert len(tokens) == len(set(tokens.ids())) == count
        assert tokens[0]['tokens'].shape == (1, 4, 4)
    for name in ('demo_ar_sample', 'demo_ar_unguided_sample'):
        drawn = ShardSet(folder / 'work_dirs/dry_run' / name / 'shards', verify=True)
        assert drawn.column('category')[:].tolist() == [*range(10)] * 5, 'every class, in turn'
        assert len(list((folder / 'work_dirs/dry_run' / name / 'samples').glob('*.png'))) == 50


def test_commands_stand_alone(dry_run):
    """The validation command, run by hand after the demo, finds the run and has the same figures."""
    folder, said = dry_run
    line = next(line for line in said.splitlines() if line.startswith('$ python -m vq.val demo '))
    file = folder / 'work_dirs/dry_run/demo/val/iter_8/results.json'
    before = json.loads(file.read_text())
    file.unlink()
    _, _, _, module, *words = shlex.split(line)
    code, _, errors = run_here(folder, module, *words)
    assert code == 0, errors
    after = json.loads(file.read_text())
    for timed in (before, after):
        timed['results'].pop('seconds')
    assert before['results'] == after['results'] and before['weights_hash'] == after['weights_hash']


def test_a_second_demo_starts_over(dry_run):
    folder, _ = dry_run
    code, said, errors = run_here(folder, 'vq.demo', '--seed', '5')
    assert code == 0, said + errors
    assert '$ rm -r' in said, 'tokens of another tokenizer would be refused'
    check_page(folder, said)


def test_a_failing_command_ends_the_demo(tmp_path):
    done = start(tmp_path, ['-m', 'vq.demo', '--override', '.trainer.no_such_key.x:1'], dry=True)
    assert done.returncode == 2
    assert 'no_such_key' in done.stderr and 'run it alone: python -m vq.train' in done.stderr.splitlines()[-1]


def test_a_command_beside_the_others_is_heard_in_its_turn(tmp_path, monkeypatch, capfd):
    """``finish`` returns lines, exit code and seconds; an abandoned command is terminated."""
    (tmp_path / 'speaks.py').write_text("import sys; print('a word'); print('an error', file=sys.stderr); sys.exit(3)")
    (tmp_path / 'waits.py').write_text('import time; time.sleep(600)')
    monkeypatch.setenv('PYTHONPATH', str(tmp_path))
    with Beside('speaks', []) as beside:
        code, seconds = beside.finish()
    said = capfd.readouterr().out
    assert code == 3 and 0 < seconds < 60 and 'a word' in said and 'an error' in said
    began = time.perf_counter()
    with pytest.raises(KeyboardInterrupt), Beside('waits', []) as left:
        raise KeyboardInterrupt
    assert time.perf_counter() - began < 60 and left.finish()[0] == -signal.SIGTERM


def test_half_of_the_demo_keeps_its_promise(tmp_path):
    """On held-out digits, with 350 of the 700 steps: 98 % of the codes in use, 2 dB above k-means on raw patches.

    The generator has a sixth of its steps: classes are distinct, given halves are kept, no image is a copy.
    """
    said = run_demo(tmp_path, '--seed', '11', '--override', '.trainer.iters:350', '--generator-iters', '100', dry=False)
    html = Reader((tmp_path / 'work_dirs/demo/report.html').read_text()).text
    ours, baseline, *_ = map(float, re.search(r'PSNR, dB (\S+) (\S+)', html).groups())
    found = json.loads((tmp_path / 'work_dirs/demo/val/iter_350/results.json').read_text())['results']
    assert found['psnr'] == pytest.approx(ours, abs=0.005)
    assert ours > baseline + 2
    assert 24.5 < baseline < 25.5, 'k-means was measured at 25.0 dB'
    assert found['codebook_usage'] >= 0.98
    ours, baseline = map(float, re.search(r"FD, classifier's features (\S+) (\S+)", html).groups())
    assert ours < baseline / 2, 'the distance was measured at a fifth of that of k-means'
    agreement = float(re.search(r'assigns ([0-9.]+) % to the requested class', said)[1])
    assert agreement > 20, 'one in ten by chance; measured at 33'
    assert int(re.search(r'share at most (\d+) %', said)[1]) <= 90, 'a digit is a copy'
    assert 'all 1440 given tokens kept' in said, '8 tokens of 180 digits'
