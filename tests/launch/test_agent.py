"""Ranks under a launcher fail, and are stopped, like one command. Small scripts stand for ranks."""

from __future__ import annotations

import json
import signal
import sys
import time
from pathlib import Path

import pytest

from tests.launch.support import Launchers, wait_for
from tests.runners.support import start, write_config
from vq.cli import errors
from vq.launch import failures

pytestmark = pytest.mark.slow


def is_running(pid: int) -> bool:
    try:
        return Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[0] != 'Z'
    except FileNotFoundError:
        return False


def test_a_message_is_said_last_and_its_code_is_the_launchers(launchers: Launchers, tmp_path: Path) -> None:
    code, said = launchers.run("if rank: leave('wrong config', 'do this', 2); sys.exit(2)\ntime.sleep(60)")
    assert (code, said[-2:]) == (2, ['error: wrong config', 'do this'])


@pytest.mark.parametrize(('code', 'expected'), [(3, 1), (2, 2), (1, 1)])
def test_a_rank_without_a_message_is_named(launchers: Launchers, tmp_path: Path, code: int, expected: int) -> None:
    found, said = launchers.run(f'if rank: sys.exit({code})\ntime.sleep(60)')
    assert (found, said[-2]) == (expected, f'error: rank 1 ended with exit code {code}')


def test_a_killed_rank_goes_before_those_that_noticed_it(launchers: Launchers, tmp_path: Path) -> None:
    """Rank 0 acts like a rank whose connection broke: it leaves a message as soon as rank 1 is dead."""
    body = """
if rank:
    os.kill(os.getpid(), signal.SIGKILL)
stat, state = pathlib.Path('/proc', pathlib.Path('started_1_0').read_text(), 'stat'), ''
while state != 'Z':
    try:
        state = stat.read_text().rpartition(')')[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        state = 'Z'
leave('connection reset', 'no idea', 1); sys.exit(1)
"""
    code, said = launchers.run(body)
    assert (code, said[-2]) == (1, 'error: rank 1 was killed by SIGKILL')


def test_all_are_started_again_until_they_are_done(launchers: Launchers, tmp_path: Path) -> None:
    code, said = launchers.run(
        'if rank and attempt < 2: os.kill(os.getpid(), 9)\nif attempt < 2: time.sleep(60)', '--max-restarts=2'
    )
    assert code == 0
    assert sorted(path.name for path in tmp_path.glob('started_*')) == [
        f'started_{rank}_{attempt}' for rank in (0, 1) for attempt in (0, 1, 2)
    ]
    assert [line for line in said if 'restart' in line] == [
        f'auto_torchrun: rank 1 was killed by SIGKILL; starting all ranks again (restart {number} of 2)' for number in (1, 2)
    ]


def test_restarts_that_are_used_up_end_with_the_last_attempts_first_error(launchers: Launchers, tmp_path: Path) -> None:
    body = "time.sleep(rank * 0.5); leave(f'rank {rank} in attempt {attempt}', 'see there', 1); sys.exit(1)"
    code, said = launchers.run(body, '--max-restarts', '1')
    assert (code, said[-2:]) == (1, ['error: rank 0 in attempt 1', 'see there'])
    assert any(line.startswith('auto_torchrun: rank 0 in attempt 0; starting') for line in said)


def test_bad_usage_is_not_tried_again(launchers: Launchers, tmp_path: Path) -> None:
    code, _ = launchers.run("leave('wrong', 'right', 2); sys.exit(2)", '--max-restarts', '5')
    assert code == 2 and not list(tmp_path.glob('started_*_1'))


def test_what_was_asked_to_stop_is_not_started_again(launchers: Launchers, tmp_path: Path) -> None:
    """Ranks that stop by themselves (after a signal to one of them) are not killed: rank 1 takes 7 s."""
    body = (
        "time.sleep(rank * 7); leave('stopped by a signal', 'go on', 1, stopped=True); open(f'end_{rank}', 'w'); sys.exit(1)"
    )
    code, said = launchers.run(body, '--max-restarts', '5')
    assert (code, said[-2:]) == (1, ['error: stopped by a signal', 'go on'])
    assert not list(tmp_path.glob('started_*_1')) and (tmp_path / 'end_1').exists()


def test_workers_of_a_rank_end_with_it(launchers: Launchers, tmp_path: Path) -> None:
    body = """
import subprocess
if rank:
    worker = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])
    pathlib.Path('worker').write_text(str(worker.pid))
    os.kill(os.getpid(), 9)
signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a rank that ignores SIGTERM is killed
time.sleep(60)
"""
    begun = time.monotonic()
    assert launchers.run(body, cold=True)[0] == 1
    assert time.monotonic() - begun < 50
    pids = [int((tmp_path / name).read_text()) for name in ('worker', 'started_0_0')]
    assert not any(is_running(pid) for pid in pids)


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_a_signal_reaches_all_and_nothing_starts_again(launchers: Launchers, tmp_path: Path, number: signal.Signals) -> None:
    body = """
def hear(number, frame):
    pathlib.Path(f'heard_{rank}').write_text(str(int(number)))
    sys.exit(1)
for number in (signal.SIGTERM, signal.SIGINT): signal.signal(number, hear)
pathlib.Path(f'ready_{rank}').touch()
time.sleep(60)
"""
    process = launchers.start(body, '--max-restarts', '3')
    wait_for(tmp_path / 'ready_0', tmp_path / 'ready_1')
    process.send_signal(number)
    assert process.wait(30) == 1
    expected = signal.SIGTERM if number == signal.SIGUSR1 else number
    assert [(tmp_path / f'heard_{rank}').read_text() for rank in (0, 1)] == [str(int(expected))] * 2
    assert not list(tmp_path.glob('started_*_1'))


def test_nohup_keeps_the_launcher_and_its_ranks(launchers: Launchers, tmp_path: Path) -> None:
    """torch's agent ends at SIGHUP from a closing terminal, even if SIGHUP was ignored."""
    body = "pathlib.Path(f'ready_{rank}').touch()\nwhile not pathlib.Path('go').exists(): time.sleep(0.01)"
    process = launchers.start(body, cold=True, before=('nohup',))
    wait_for(tmp_path / 'ready_0', tmp_path / 'ready_1')
    process.send_signal(signal.SIGHUP)
    time.sleep(0.5)
    (tmp_path / 'go').touch()
    assert process.wait(60) == 0


@pytest.mark.skipif(sys.platform != 'linux', reason='children are told of their parent by Linux only')
def test_ranks_of_a_launcher_that_is_killed_are_asked_to_stop(launchers: Launchers, tmp_path: Path) -> None:
    body = """
signal.signal(signal.SIGTERM, lambda *_: (pathlib.Path(f'heard_{rank}').touch(), sys.exit(1)))
pathlib.Path(f'ready_{rank}').touch()
time.sleep(60)
"""
    process = launchers.start(body, cold=True)
    wait_for(tmp_path / 'ready_0', tmp_path / 'ready_1')
    process.kill()
    wait_for(tmp_path / 'heard_0', tmp_path / 'heard_1')


def test_ranks_find_what_torch_asks_for(launchers: Launchers, tmp_path: Path) -> None:
    code, _ = launchers.run("json.dump(dict(os.environ), open(f'env_{rank}', 'w'))", '--max-restarts', '4')
    assert code == 0
    found = [json.loads((tmp_path / f'env_{rank}').read_text()) for rank in (0, 1)]
    for rank, variables in enumerate(found):
        assert [variables[name] for name in ('RANK', 'LOCAL_RANK', 'WORLD_SIZE', 'LOCAL_WORLD_SIZE')] == [f'{rank}'] * 2 + [
            '2'
        ] * 2
        assert (variables['TORCHELASTIC_MAX_RESTARTS'], variables['MASTER_ADDR']) == ('4', '127.0.0.1')
    assert found[0]['MASTER_PORT'] == found[1]['MASTER_PORT']
    assert found[0]['TORCHELASTIC_RUN_ID'] == found[1]['TORCHELASTIC_RUN_ID']


# messages


def test_the_first_message_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(failures.VARIABLE, str(tmp_path / 'error.json'))
    errors.leave('first', 'do this', 2)
    errors.leave('second', 'do that', 1)
    assert '"first"' in (tmp_path / 'error.json').read_text()
    assert 'second' not in (tmp_path / 'error.json').read_text()


@pytest.mark.slow
def test_bad_usage_on_two_ranks_is_said_once_more_and_exits_with_2(tmp_path: Path) -> None:
    config = str(write_config(tmp_path))
    done = start(tmp_path, 'run', config, '--override', '.trainer.model.tokenizer.encoder.widht:8', ranks=2)
    assert done.returncode == 2
    message, hint = done.stderr.strip().splitlines()[-2:]
    assert message.startswith("error: trainer.model.tokenizer.encoder: ConvEncoder has no parameter 'widht'")
    assert hint.startswith('It takes: ')
