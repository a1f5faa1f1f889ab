"""``python -m vq.demo understanding``: its page, going on, and a part that fails."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from pathlib import Path

import pytest

from tests.report.support import Reader, needs_nothing_else
from tests.runners.support import commands_here
from tests.sources import ROOT
from vq.cli import demo
from vq.demo.chains import CHAINS, PARTS, TINY_CODES
from vq.loading import load
from vq.report.understanding import COLUMNS

pytestmark = pytest.mark.slow
RUNS = Path('work_dirs/dry_run/understanding')


def run_here(folder: Path, *words: str) -> tuple[int, str, str]:
    """A dry ``python -m vq.demo understanding WORDS`` in this process, which has imported everything."""
    out, errors = io.StringIO(), io.StringIO()
    with contextlib.chdir(folder), commands_here(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
        code = demo.main(['understanding', *words])
    return code, out.getvalue(), errors.getvalue()


@pytest.fixture(scope='module')
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which all parts but the judge are done."""
    folder = tmp_path_factory.mktemp('understanding')
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv('DRY_RUN', 'True')
        for part in PARTS[:-1]:
            code, said, errors = run_here(folder, '--only', part)
            assert code == 0, said[-2000:] + errors[-4000:]
    return folder


def test_a_second_call_goes_on_and_writes_the_whole_page(finished, monkeypatch):
    """It trains the judge, which is missing, and the generator whose last steps are lost, and nothing else."""
    monkeypatch.setenv('DRY_RUN', 'True')
    monkeypatch.setenv('PYTHONPATH', str(ROOT))
    runs = finished / RUNS
    shutil.rmtree(runs / 'fsq_ar' / 'checkpoints' / 'iter_8')
    (runs / 'fsq.done').unlink()
    before = {file: file.stat().st_mtime_ns for name in CHAINS for file in (runs / name / 'checkpoints').rglob('model.*')}
    code, said, errors = run_here(finished)
    assert code == 0, said[-2000:] + errors[-4000:]
    assert [line.partition(':')[0] for line in said.splitlines() if ': started' in line] == ['fsq', 'judge']
    assert before == {file: file.stat().st_mtime_ns for file in before}, 'a tokenizer was trained again'
    steps = [json.loads(line).get('step') for line in (runs / 'fsq_ar' / 'log.jsonl').read_text().splitlines()]
    assert (runs / 'fsq_ar' / 'checkpoints' / 'iter_8').is_dir() and steps.count(2) == 1, 'it went on after step 4'

    monkeypatch.chdir(finished)
    for name in CHAINS:
        tokenizer = load(RUNS / name)
        assert (tokenizer.token_shape, tokenizer.codebook_size) == ((4, 4), TINY_CODES)
    html = (runs / 'report.html').read_text()
    reader = Reader(html)
    assert needs_nothing_else(html)
    assert reader.ids == ['results', 'claims', 'reconstructions', 'drawn', 'losses', 'commands']
    assert reader.tags.count('img') == 20 * 5 + 4
    assert all(chain.title in reader.text for chain in CHAINS.values())
    assert 'nan' not in said and 'Dry run' in reader.text
    for column in COLUMNS.values():
        [line] = [line for line in said.splitlines() if line.startswith(f'{column.words}  ')]
        assert len(line.removeprefix(column.words).split()) == len(CHAINS), 'a column is not filled'


def test_a_part_that_fails_ends_the_demo(finished, monkeypatch):
    """Another seed: the runs that are there are not of this seed, and are not touched."""
    monkeypatch.setenv('DRY_RUN', 'True')
    monkeypatch.setenv('PYTHONPATH', str(ROOT))
    monkeypatch.setattr('vq.core.environment.usable_cores', lambda: 1)
    code, said, errors = run_here(finished, '--seed', '5')
    assert code == 1
    assert 'teacher failed' in errors and 'seed' in said
    assert 'vqgan: started' not in said
