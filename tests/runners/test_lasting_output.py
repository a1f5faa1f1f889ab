"""A run outlives its terminal: output that is lost never ends a training, and is counted and reported."""

from __future__ import annotations

import io
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.runners.support import REPOSITORY, build_trainer, logged, quiet, write_config
from tests.snippets import environment
from vq.assembly import logs
from vq.core import output
from vq.runners.journal import Journal, read


@pytest.fixture(autouse=True)
def nothing_lost():
    output.LOST.clear()
    yield
    output.LOST.clear()


def shell(folder: Path, line: str, python: str | Path = sys.executable) -> subprocess.CompletedProcess[str]:
    """A line of bash, with ``train`` as the command of a run of 8 steps. It starts cold: the streams are the shell's."""
    config = write_config(folder)
    train = f"{python} -m vq.train run {config} --override '.trainer.callbacks.log.interval:1'"
    given = {**environment(), 'PYTHONPATH': str(REPOSITORY)}
    return subprocess.run(
        ['bash', '-c', f'set -o pipefail; {line.replace("train", train)}'],
        cwd=folder,
        env=given,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ('line', 'reason'),
    [
        ('train 2>&1 | head -1', 'Broken pipe'),
        ('train >&- 2>&-', 'closed'),
        ('train > /dev/full 2>&1', 'No space left'),
    ],
)
def test_training_goes_on_without_a_terminal(tmp_path: Path, line: str, reason: str) -> None:
    ended = shell(tmp_path, line)
    run = tmp_path / 'work_dirs/run'
    assert ended.returncode == 0 and 'Traceback' not in ended.stderr
    assert (run / 'checkpoints/iter_8/COMPLETE').is_file()
    assert [record['step'] for record in logged(run) if record['kind'] == 'train'] == [1, 2, 3, 4, 5, 6, 7, 8]
    text = (run / 'log.txt').read_text()
    assert 'of stderr' in text and reason in text


@pytest.mark.slow
def test_a_log_on_a_full_disk_does_not_end_a_run(tmp_path: Path, warm_programs: Path) -> None:
    (tmp_path / 'work_dirs/run').mkdir(parents=True)
    (tmp_path / 'work_dirs/run/log.txt').symlink_to('/dev/full')
    ended = shell(tmp_path, 'train', warm_programs / 'python')
    assert ended.returncode == 0 and (tmp_path / 'work_dirs/run/checkpoints/iter_8/COMPLETE').is_file()
    assert 'of log.txt (No space left on device)' in ended.stderr and 'Traceback' not in ended.stderr


@pytest.mark.slow
def test_a_command_whose_result_is_lost_fails(tmp_path: Path) -> None:
    command = f'{sys.executable} -m vq.config --list digits'
    assert shell(tmp_path, f'{command} > /dev/full').returncode == 1
    read_by_head = shell(tmp_path, f'{command} | head -1')
    assert read_by_head.returncode == 0 and 'Traceback' not in read_by_head.stderr


def test_a_journal_on_a_full_disk_counts_lines_and_recovers(tmp_path: Path) -> None:
    path = tmp_path / 'log.jsonl'
    journal = Journal(path)
    journal.write(1, 'train', {'loss': 1.0})
    with path.open('a') as file:
        file.write('{"step": 2, "ki')  # the disk was full in the middle of a line
    journal.path, journal._torn = Path('/dev/full'), True
    journal.write(3, 'train', {'loss': 3.0})
    assert output.lost() == '1 line of full (No space left on device)'
    journal.path = path
    journal.write(4, 'train', {'loss': 4.0})
    assert [record['step'] for record in read(path)] == [1, 4]


def test_a_training_with_a_lost_journal_ends_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    trainer = build_trainer(tmp_path, dict(iters=2), quiet())
    setup = trainer.setup

    def with_full_disk() -> None:
        setup()
        trainer.journal.path = Path('/dev/full')

    trainer.setup = with_full_disk
    trainer.run()
    trainer.journal.write(2, 'train', {})
    assert trainer.step == 2 and 'of full (No space left on device)' in output.lost()


def test_a_log_file_counts_lines_and_keeps_errors_of_the_program(tmp_path: Path) -> None:
    handler = logs.LogFile('/dev/full')
    handler.handle(logging.makeLogRecord({'msg': 'lost'}))
    assert output.lost() == '1 line of full (No space left on device)'
    with pytest.raises(TypeError):
        handler.handle(logging.makeLogRecord({'msg': 'one %s two %s', 'args': (1,)}))


def test_streams_never_raise_and_are_put_back() -> None:
    closed = io.StringIO()
    closed.close()
    before = sys.stdout, sys.stderr
    sys.stderr = closed
    try:
        with output.lasting() as out:
            print('one', file=sys.stderr, flush=True)
            assert not sys.stderr.isatty() and not output.is_full(out)
            print('seen')
        assert sys.stderr is closed and sys.stdout is before[0]
    finally:
        sys.stderr = before[1]
    assert 'stderr' in output.lost()


@pytest.mark.slow
def test_descriptors_that_are_closed_are_not_given_to_files(tmp_path: Path) -> None:
    """A checkpoint with descriptor 2 would get the error messages of C libraries."""
    script = (
        "import os, sys\nfrom vq.core import output\nwith output.lasting():\n    file = open('f', 'w')\n"
        "    os.write(2, b'error of a library')\n    file.write(str(file.fileno()))\n"
    )
    command = f"{sys.executable} -c '{script}' >&- 2>&-".replace("'f'", '"f"').replace("'w'", '"w"')
    command = command.replace("b'error of a library'", 'b"error of a library"')
    assert shell(tmp_path, command).returncode == 0
    assert int((tmp_path / 'f').read_text()) > 2


@pytest.mark.slow
@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGHUP])
def test_the_first_ctrl_c_writes_a_checkpoint_and_a_closed_terminal_ends_nothing(tmp_path: Path, number: int) -> None:
    config = write_config(tmp_path)
    options = ['--config-options', 'iters:40', 'save_every:1000', 'kill_at:5', f'kill_signal:{int(number)}', 'kill_times:1']
    command = [sys.executable, '-m', 'vq.train', 'run', str(config), *options]
    ended = subprocess.run(
        command,
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),  # the tests may run in the background
    )
    run = tmp_path / 'work_dirs/run'
    if number == signal.SIGINT:
        assert ended.returncode == 1 and 'Ctrl-C again to stop at once' in ended.stderr
        assert 'Go on with the same command and --auto-resume.' in ended.stderr
        assert sorted(os.listdir(run / 'checkpoints')) == ['iter_5', 'latest']
    else:
        assert ended.returncode == 0 and 'training goes on; kill -TERM' in ended.stderr
        assert (run / 'checkpoints/iter_40/COMPLETE').is_file()


def test_a_second_ctrl_c_interrupts_at_once(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    trainer = build_trainer(tmp_path, dict(iters=4), {**quiet(dict(type='PreemptionCallback')), '.trainer.iters': 4})
    step = trainer.train_step

    def interrupted() -> None:
        step()
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    trainer.train_step = interrupted
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            trainer.run()
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert 'Ctrl-C again to stop at once' in capfd.readouterr().err


def test_a_job_in_the_background_ignores_ctrl_c(tmp_path: Path) -> None:
    trainer = build_trainer(tmp_path, dict(iters=2), quiet(dict(type='PreemptionCallback')))
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    step = trainer.train_step

    def interrupted() -> None:
        step()
        signal.raise_signal(signal.SIGINT)

    trainer.train_step = interrupted
    try:
        trainer.run()
        assert trainer.step == 2 and not trainer.stop_requested
    finally:
        signal.signal(signal.SIGINT, before)
