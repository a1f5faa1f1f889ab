"""Real training under the launcher: killed, started again, on two "nodes", asked to stop. The bits are compared."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.launch.support import free_port, wait_for
from tests.ranks import GlooPool
from tests.runners.support import REPOSITORY, assert_same, everything, logged, samples, start, train, write_config
from tests.warm import programs

pytestmark = pytest.mark.slow


NEVER = 99


def options(kill_at: int = NEVER, **values: object) -> list[str]:
    """All runs have the killing callback, since checkpoints list their callbacks."""
    values['kill_at'] = kill_at
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


def begin(folder: Path, *command: str, cold: bool = False) -> subprocess.Popen[str]:
    environment = {name: value for name, value in os.environ.items() if name not in ('DRY_RUN', 'RANK', 'WORLD_SIZE')}
    environment |= {'PYTHONPATH': str(REPOSITORY), 'OMP_NUM_THREADS': '1'}
    python = sys.executable if cold else programs() / 'python'
    return subprocess.Popen([python, *command], cwd=folder, env=environment, stderr=subprocess.PIPE, text=True)


def test_killed_rank_is_restarted_from_the_checkpoint(tmp_path: Path, straight: Path) -> None:
    """The folder has another, longer run. The first start must delete it, and the restart must not start over."""
    config, run = str(write_config(tmp_path)), tmp_path / 'work_dirs/run'
    assert train(str(tmp_path), 'run', config, '--seed', '1', '--config-options', 'iters:9') == 0
    (run / 'samples_0.txt').unlink()  # the recorder of the tests appends to it
    arguments = ['run', config, '--overwrite', *options(kill_at=6, kill_rank=1, kill_times=1)]
    done = start(tmp_path, *arguments, ranks=2, launch=['--max-restarts', '1'])
    assert done.returncode == 0, done.stderr
    assert 'rank 1 was killed by SIGKILL; starting all ranks again (restart 1 of 1)' in done.stderr
    assert 'resumed work_dirs/run/checkpoints/iter_4 at step 4' in (run / 'log.txt').read_text()
    assert not (run / 'checkpoints/iter_9').exists()
    compare(straight, run)


def test_killed_before_the_first_checkpoint_it_begins_again(tmp_path: Path, straight: Path) -> None:
    """Step 4 is killed twice, after the log line of step 3. The final log has this line once."""
    config = str(write_config(tmp_path))
    done = start(tmp_path, 'run', config, *options(kill_at=4, kill_times=2), ranks=2, launch=['--max-restarts=2'])
    assert done.returncode == 0, done.stderr
    assert 'resumed' not in (tmp_path / 'work_dirs/run/log.txt').read_text()
    compare(straight, tmp_path / 'work_dirs/run')


@pytest.mark.parametrize('killed', [False, True])
def test_two_launchers_are_two_nodes(tmp_path: Path, straight: Path, killed: bool) -> None:
    config, port = str(write_config(tmp_path)), free_port()
    config_options = options(kill_at=6, kill_rank=1, kill_times=1) if killed else options()
    nodes = []
    for rank in (0, 1):
        place = ['--nnodes', '2', '--node-rank', str(rank), '--rdzv-endpoint', f'127.0.0.1:{port}', '--nproc-per-node', '1']
        place += ['--max-restarts', '1'] if killed else []
        nodes.append(begin(tmp_path, '-m', 'vq.launch.main', *place, '-m', 'vq.train', 'run', config, *config_options))
    said = [process.communicate(timeout=200)[1] for process in nodes]
    print(*said, sep='\n')
    assert [process.returncode for process in nodes] == [0, 0]
    compare(straight, tmp_path / 'work_dirs/run')


def test_overwrite_deletes_no_checkpoint_of_a_launch_of_torchrun_on_two_nodes(
    tmp_path: Path, straight: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under torchrun: a rank of one node dies, and the other node starts its ranks again with restart count 0."""
    monkeypatch.setenv('TORCH_DISABLE_SHARE_RDZV_TCP_STORE', '1')  # or restarts fail in most tries (pytorch#135712)
    config, port, run = str(write_config(tmp_path)), free_port(), tmp_path / 'work_dirs/run'
    place = ['--nnodes', '2', '--nproc-per-node', '1', '--max-restarts', '2', '--rdzv-id', 'of a test']
    place += ['--rdzv-backend', 'c10d', '--rdzv-endpoint', f'127.0.0.1:{port}', '-m', 'vq.train']
    arguments = ['run', config, '--overwrite', *options(kill_at=6, kill_rank=1, kill_times=1)]
    nodes = [begin(tmp_path, '-m', 'torch.distributed.run', *place, *arguments) for _ in (0, 1)]
    said = [process.communicate(timeout=280)[1] for process in nodes]
    print(*said, sep='\n')
    assert [process.returncode for process in nodes] == [0, 0]
    assert 'resumed work_dirs/run/checkpoints/iter_4 at step 4' in (run / 'log.txt').read_text()
    compare(straight, run)


def test_sigterm_to_the_launcher_ends_with_a_checkpoint(tmp_path: Path) -> None:
    """There is no restart, although restarts are left."""
    config, run = str(write_config(tmp_path)), tmp_path / 'work_dirs/run'
    launch = ['-m', 'vq.launch.main', '--nproc-per-node', '2', '--max-restarts', '3', '-m', 'vq.train']
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


def test_9_a_lost_launcher_is_told_and_a_checkpoint_written(tmp_path: Path) -> None:
    config, run = str(write_config(tmp_path)), tmp_path / 'work_dirs/run'
    launch = ['-m', 'vq.launch.main', '--nproc-per-node', '2', '-m', 'vq.train']
    process = begin(tmp_path, *launch, 'run', config, *options(iters=100000, save_every=100000), cold=True)
    wait_for(run / 'samples_0.txt', run / 'samples_1.txt')
    process.kill()
    _, said = process.communicate(timeout=120)
    assert 'error: stopped, because the launcher of this rank has gone, after step ' in said
    assert said.strip().splitlines()[-1] == 'Go on with the same command and --auto-resume.' and 'Traceback' not in said
    assert len(list(run.glob('checkpoints/iter_*/COMPLETE'))) == 1
