"""Real training under the launcher: killed, started again, on two "nodes", asked to stop. The bits are compared."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.test_launch_nodes import ports_in_a_row
from tests.cli.test_several import wait_for
from tests.ranks import GlooPool
from tests.runners.support import REPOSITORY, assert_same, everything, logged, samples, start, train, write_config

pytestmark = pytest.mark.slow


def options(**values: object) -> list[str]:
    return ['--config-options', 'strategy::ddp', *(f'{name}:{value}' for name, value in values.items())]


@pytest.fixture(scope='module')
def straight(tmp_path_factory: pytest.TempPathFactory, gloo_pool: GlooPool) -> Path:
    """An undisturbed run on two ranks."""
    folder = tmp_path_factory.mktemp('straight')
    config = str(write_config(folder))
    assert gloo_pool.run(train, str(folder), 'run', config, *options()) == [0, 0]
    return folder / 'work_dirs/run'


def compare(straight: Path, run: Path) -> None:
    assert_same(everything(straight / 'checkpoints/iter_8'), everything(run / 'checkpoints/iter_8'))
    assert logged(straight) == logged(run)
    assert [samples(straight, rank) for rank in (0, 1)] == [samples(run, rank) for rank in (0, 1)]


def begin(folder: Path, *command: str) -> subprocess.Popen[str]:
    environment = {name: value for name, value in os.environ.items() if name not in ('DRY_RUN', 'RANK', 'WORLD_SIZE')}
    environment |= {'PYTHONPATH': str(REPOSITORY), 'OMP_NUM_THREADS': '1'}
    return subprocess.Popen([sys.executable, *command], cwd=folder, env=environment, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize('overwrite', [False, True])
def test_killed_rank_is_restarted_from_the_checkpoint(tmp_path: Path, straight: Path, overwrite: bool) -> None:
    """Also where the folder holds another, longer run, which the first start was to forget and the second must not."""
    config, run = str(write_config(tmp_path)), tmp_path / 'work_dirs/run'
    arguments: list[str] = []
    if overwrite:
        assert train(str(tmp_path), 'run', config, '--seed', '1', '--config-options', 'iters:9') == 0
        for path in run.glob('samples_*'):  # the recorder of the tests appends to them
            path.unlink()
        arguments = ['--overwrite']
    done = start(
        tmp_path,
        *('run', config, *arguments, *options(kill_at=6, kill_rank=1, kill_times=1)),
        ranks=2,
        launch=['--max-restarts', '1'],
    )
    assert done.returncode == 0, done.stderr
    assert 'rank 1 was killed by SIGKILL; starting all ranks again (restart 1 of 1)' in done.stderr
    assert 'resumed work_dirs/run/checkpoints/iter_4 at step 4' in (run / 'log.txt').read_text()
    assert not (run / 'checkpoints/iter_9').exists()
    compare(straight, run)


def test_killed_before_the_first_checkpoint_it_begins_again(tmp_path: Path, straight: Path) -> None:
    """Step 4 is killed when the log has a line of step 3, and again: the line stands there once in the end."""
    config = str(write_config(tmp_path))
    done = start(tmp_path, 'run', config, *options(kill_at=4, kill_times=2), ranks=2, launch=['--max-restarts=2'])
    assert done.returncode == 0, done.stderr
    assert 'resumed' not in (tmp_path / 'work_dirs/run/log.txt').read_text()
    compare(straight, tmp_path / 'work_dirs/run')


def test_restarts_are_used_up(tmp_path: Path) -> None:
    config = str(write_config(tmp_path))
    done = start(tmp_path, 'run', config, *options(kill_at=6, kill_rank=1), ranks=2, launch=['--max-restarts', '1'])
    assert done.returncode == 1
    lines = done.stderr.strip().splitlines()
    assert lines[-2] == 'error: rank 1 was killed by SIGKILL' and lines[-1].endswith(
        'with the same command and --auto-resume.'
    )
    assert (tmp_path / 'work_dirs/run/kills.txt').read_text() == 'xx'


def test_torchruns_own_restarts_resume_too(tmp_path: Path, straight: Path) -> None:
    config = str(write_config(tmp_path))
    torchrun = ['-m', 'torch.distributed.run', '--standalone', '--nproc-per-node=2', '--max-restarts=1']
    process = begin(tmp_path, *torchrun, '-m', 'vq.train', 'run', config, *options(kill_at=6, kill_rank=1, kill_times=1))
    assert process.communicate(timeout=200) and process.returncode == 0
    compare(straight, tmp_path / 'work_dirs/run')


@pytest.mark.parametrize('killed', [False, True])
def test_two_launchers_are_two_nodes(tmp_path: Path, straight: Path, killed: bool) -> None:
    config, port = str(write_config(tmp_path)), ports_in_a_row()
    kill = {'kill_at': 6, 'kill_rank': 1, 'kill_times': 1} if killed else {}
    nodes = []
    for rank in (0, 1):
        place = ['--nnodes', '2', '--node-rank', str(rank), '--rdzv-endpoint', f'127.0.0.1:{port}', '--nproc-per-node', '1']
        place += ['--max-restarts', '1'] if killed else []
        nodes.append(begin(tmp_path, '-m', 'vq.cli.launch', *place, '-m', 'vq.train', 'run', config, *options(**kill)))
    said = [process.communicate(timeout=200)[1] for process in nodes]
    assert [process.returncode for process in nodes] == [0, 0], said
    compare(straight, tmp_path / 'work_dirs/run')


def test_sigterm_to_the_launcher_ends_with_a_checkpoint(tmp_path: Path) -> None:
    """And with no restart, although there are some left; the same command with --auto-resume goes on."""
    config, run = str(write_config(tmp_path)), tmp_path / 'work_dirs/run'
    launch = ['-m', 'vq.cli.launch', '--nproc-per-node', '2', '--max-restarts', '3', '-m', 'vq.train']
    process = begin(tmp_path, *launch, 'run', config, *options(iters=100000, save_every=100000))
    wait_for(run / 'samples_0.txt', run / 'samples_1.txt')
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 1
    message, hint = said.strip().splitlines()[-2:]
    assert message.startswith('error: stopped by a signal after step ')
    assert hint == 'Go on with the same command and --auto-resume.'
    step = int(message.split()[-3])
    assert (run / f'checkpoints/iter_{step}/COMPLETE').exists() and 'starting all ranks again' not in said
    done = start(tmp_path, 'run', config, '--auto-resume', *options(iters=step + 2, save_every=100000), ranks=2)
    assert done.returncode == 0 and f'at step {step}, ' in (run / 'log.txt').read_text(), done.stderr
