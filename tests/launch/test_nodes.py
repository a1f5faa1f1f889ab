"""Two "nodes" are two launchers on loopback. Small scripts stand for ranks."""

from __future__ import annotations

import signal
import socket
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.launch.support import Launchers, ends, free_port, wait_for
from vq.core.errors import UserError
from vq.launch.place import Place

pytestmark = pytest.mark.slow


@pytest.fixture
def port() -> int:
    return free_port()


def test_ranks_are_numbered_over_the_nodes(launchers: Launchers, tmp_path: Path, port: int) -> None:
    names = 'WORLD_SIZE', 'LOCAL_RANK', 'MASTER_ADDR', 'MASTER_PORT', 'TORCHELASTIC_RUN_ID'
    body = f"pathlib.Path(f'env_{{rank}}').write_text(' '.join(os.environ[name] for name in {names}))"
    assert [code for code, _ in ends(*(launchers.node(rank, port, body, nodes=3) for rank in (2, 0, 1)))] == [0, 0, 0]
    [found] = {(tmp_path / f'env_{rank}').read_text() for rank in (0, 1, 2)}
    assert found.startswith('3 0 127.0.0.1 ')


@pytest.mark.parametrize('dying', [0, 1])
def test_a_death_on_one_node_starts_both_again(launchers: Launchers, tmp_path: Path, port: int, dying: int) -> None:
    body = f'if rank == {dying} and attempt < 2: os.kill(os.getpid(), 9)\nif attempt < 2: time.sleep(60)'
    assert [code for code, _ in ends(*(launchers.node(rank, port, body, '--max-restarts', '2') for rank in (0, 1)))] == [0, 0]
    assert len(list(tmp_path.glob('started_*'))) == 6


@pytest.mark.parametrize('failing', [0, 1])
def test_the_first_error_is_said_on_every_node(launchers: Launchers, tmp_path: Path, port: int, failing: int) -> None:
    body = f"if rank == {failing}: leave('wrong config', 'do this', 2); sys.exit(2)\ntime.sleep(60)"
    for code, said in ends(*(launchers.node(rank, port, body, '--max-restarts', '2') for rank in (0, 1))):
        assert (code, said[-2:]) == (2, ['error: wrong config', 'do this'])


def test_an_echo_of_a_death_elsewhere_is_not_the_first_error(launchers: Launchers, tmp_path: Path, port: int) -> None:
    body = """
if rank:
    time.sleep(0.5); os.kill(os.getpid(), 9)
time.sleep(0.4); leave('connection reset', 'no idea', 1); sys.exit(1)
"""
    for code, said in ends(*(launchers.node(rank, port, body) for rank in (0, 1))):
        assert (code, said[-2]) == (1, 'error: rank 1 was killed by SIGKILL')


@pytest.mark.parametrize('asked', [0, 1])
def test_a_signal_to_one_launcher_ends_both(launchers: Launchers, tmp_path: Path, port: int, asked: int) -> None:
    """The rank that gets the signal tells the other rank through a file, as ranks of a run do through a collective."""
    body = """
signal.signal(signal.SIGTERM, lambda *_: pathlib.Path('stop').touch())
pathlib.Path(f'ready_{rank}').touch()
while not pathlib.Path('stop').exists(): time.sleep(0.01)
time.sleep(6 * rank)  # a long checkpoint
pathlib.Path(f'end_{rank}').touch()
leave('stopped by a signal', 'go on', 1, stopped=True); sys.exit(1)
"""
    nodes = [launchers.node(rank, port, body, '--max-restarts', '2') for rank in (0, 1)]
    wait_for(tmp_path / 'ready_0', tmp_path / 'ready_1')
    nodes[asked].send_signal(signal.SIGTERM)
    for code, said in ends(*nodes):
        assert (code, said[-2:]) == (1, ['error: stopped by a signal', 'go on'])
    assert (tmp_path / 'end_1').exists() and not list(tmp_path.glob('started_*_1'))


@pytest.mark.parametrize('first_done', [0, 1])
def test_a_node_that_is_done_starts_again_with_the_others(
    launchers: Launchers, tmp_path: Path, port: int, first_done: int
) -> None:
    body = f"""
if rank != {first_done} and attempt == 0:
    time.sleep(1); os.kill(os.getpid(), 9)
"""
    assert [code for code, _ in ends(*(launchers.node(rank, port, body, '--max-restarts=1') for rank in (0, 1)))] == [0, 0]
    assert len(list(tmp_path.glob('started_*_1'))) == 2


def test_a_node_that_is_lost_is_waited_for_and_all_start_again(launchers: Launchers, tmp_path: Path, port: int) -> None:
    body = "pathlib.Path(f'ready_{rank}').touch()\nif attempt == 0: time.sleep(60)"
    first, second = (launchers.node(rank, port, body, '--max-restarts', '1', cold=bool(rank)) for rank in (0, 1))
    wait_for(tmp_path / 'ready_0', tmp_path / 'ready_1')
    second.kill()
    second.communicate()
    again = launchers.node(1, port, body, '--max-restarts', '1')
    (code, said), (code_again, _) = ends(first, again)
    assert (code, code_again) == (0, 0)
    assert any('the launcher of node 1 has gone; starting all ranks again' in line for line in said)


def test_a_second_launcher_for_a_node_ends_all_if_no_restarts_are_left(
    launchers: Launchers, tmp_path: Path, port: int
) -> None:
    body = "pathlib.Path(f'ready_{rank}').touch()\ntime.sleep(60)"
    nodes = [launchers.node(rank, port, body) for rank in (0, 1)]
    wait_for(tmp_path / 'ready_0', tmp_path / 'ready_1')
    for code, said in ends(*nodes, launchers.node(1, port, body)):
        assert (code, said[-2]) == (1, 'error: the launcher of node 1 has gone')


def test_a_leader_that_is_lost_ends_the_others(launchers: Launchers, tmp_path: Path, port: int) -> None:
    body = "pathlib.Path(f'ready_{rank}').touch()\ntime.sleep(60)"
    first, second = (launchers.node(rank, port, body, '--max-restarts', '1', cold=not rank) for rank in (0, 1))
    wait_for(tmp_path / 'ready_0', tmp_path / 'ready_1')
    first.kill()
    first.communicate()
    [(code, said)] = ends(second)
    assert (code, said[-2]) == (1, 'error: the launcher of node 0 has gone')


def test_launchers_of_different_shapes_do_not_begin(launchers: Launchers, port: int) -> None:
    first = launchers.node(0, port, 'pass')
    where = ['--nnodes=2', '--node-rank=1', '--rdzv-endpoint', f'127.0.0.1:{port}', '--nproc-per-node=3']
    other = launchers.start('pass', *where, '--nnodes', '2')
    [(code, said)] = ends(other)
    shapes = '2 nodes and 6 ranks, 3 of them on each, and node 0 has 2 nodes and 2 ranks, 1 of them on each'
    assert (code, said[-2]) == (2, f'error: this launcher has {shapes}')
    first.send_signal(signal.SIGTERM)  # it still waits
    [(code, said)] = ends(first)
    assert (code, said[-2]) == (1, 'error: stopped by a signal')


@pytest.mark.skipif(sys.platform != 'linux', reason='whether a process catches a signal stands in /proc')
@pytest.mark.parametrize('asked', [0, 1])
def test_a_launcher_that_waits_for_the_others_can_be_stopped(launchers: Launchers, port: int, asked: int) -> None:
    waiting = launchers.node(asked, port, 'pass', nodes=3, cold=True)
    status, caught = Path(f'/proc/{waiting.pid}/status'), 0
    while not caught & 1 << signal.SIGUSR1 - 1:
        caught = int(status.read_text().partition('SigCgt:')[2].split()[0], 16)
    time.sleep(0.5)
    waiting.send_signal(signal.SIGINT)
    [(code, said)] = ends(waiting)
    assert (code, said[-2]) == (1, 'error: stopped by a signal')


def test_a_port_that_is_taken_is_said(launchers: Launchers) -> None:
    with socket.create_server(('', 0)) as taken:
        port = taken.getsockname()[1]
        [(code, said)] = ends(launchers.node(0, port, 'pass'))
    assert (code, said[-2:]) == (2, [f'error: the rendezvous cannot use port {port} of node 0', 'Give another --master-port.'])


def test_launchers_that_never_come_are_named(monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    from vq.launch import agent

    monkeypatch.setattr(agent, 'PATIENCE', 0.3)
    with pytest.raises(UserError, match=r'the launchers of nodes 1, 2 did not join within 0 s') as raised:
        agent.Rendezvous(Place(1, 3, 0, '127.0.0.1', port), 0).next_rendezvous()
    assert raised.value.exit_code == 1
    with pytest.raises(UserError, match=r'node 0 did not answer at 127') as raised:
        agent.Rendezvous(Place(1, 3, 1, '127.0.0.1', free_port()), 0).next_rendezvous()
    assert raised.value.exit_code == 1


def test_strangers_do_not_disturb(port: int) -> None:
    from vq.launch import agent

    nodes = [agent.Rendezvous(Place(1, 2, node, '127.0.0.1', port), 0) for node in (0, 1)]
    leader = threading.Thread(target=nodes[0].next_rendezvous)
    leader.start()
    for noise in (b'GET / HTTP/1.0\r\n\r\n', b'[1]\n', b'\xff' * 70000, b''):
        while (stranger := socket.socket()).connect_ex(('127.0.0.1', port)):
            stranger.close()
        stranger.sendall(noise)
        stranger.close()
    info = nodes[1].next_rendezvous()
    leader.join(10)
    assert (info.rank, info.world_size) == (1, 2) and not leader.is_alive()
    assert nodes[0].run_id == nodes[1].run_id


def test_tasks_of_srun_keep_their_local_ranks(
    launchers: Launchers, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, port: int
) -> None:
    """One task per device: with restarts each task has a launcher."""
    step = {'STEP_NUM_TASKS': 2, 'STEP_NUM_NODES': 1, 'STEP_TASKS_PER_NODE': 2, 'STEP_NODELIST': 'here', 'NODEID': 0}
    for name, value in step.items():
        monkeypatch.setenv(f'SLURM_{name}', str(value))
    tasks = []
    for rank in ('0', '1'):
        monkeypatch.setenv('SLURM_PROCID', rank)
        monkeypatch.setenv('SLURM_LOCALID', rank)
        names = 'LOCAL_RANK', 'LOCAL_WORLD_SIZE', 'TORCHELASTIC_RESTART_COUNT'
        body = f"open(f'env_{{rank}}', 'a').write(' '.join(os.environ[name] for name in {names}) + ' ' + sys.argv[1] + ';')"
        body += '\nif rank and not attempt: os.kill(os.getpid(), 9)\nif not attempt: time.sleep(60)'
        where = ['--master-addr', '127.0.0.1', '--master-port', str(port), '--max-restarts', '1', '--nnodes', '1']
        tasks.append(launchers.start(body, *where, script=('script.py', '$HOME $$')))
    assert [code for code, _ in ends(*tasks)] == [0, 0]
    assert [(tmp_path / f'env_{rank}').read_text() for rank in (0, 1)] == [
        f'{rank} 2 0 $HOME $$;{rank} 2 1 $HOME $$;' for rank in (0, 1)
    ]
