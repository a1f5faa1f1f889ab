"""Two "nodes" are two launchers on loopback. No torch: small scripts stand for ranks."""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from tests.cli.test_several import launcher, wait_for
from vq.cli import meeting, ports
from vq.cli.cluster import Place
from vq.core.errors import RunFailure

pytestmark = pytest.mark.slow


def ports_in_a_row() -> int:
    """A port that is free, and the next one too."""
    while True:
        port = ports.free_port()
        with socket.socket() as above:
            if port < 65534 and above.connect_ex(('127.0.0.1', port + 1)) != 0:
                return port


@pytest.fixture
def port() -> int:
    return ports_in_a_row()


def node(folder: Path, rank: int, port: int, body: str, *options: str, nodes: int = 2) -> subprocess.Popen[str]:
    place = ['--nnodes', str(nodes), '--node-rank', str(rank), '--master-addr', '127.0.0.1', '--master-port', str(port)]
    return launcher(folder, body, *place, '--nproc-per-node', '1', *options)


def ends(*processes: subprocess.Popen[str]) -> list[tuple[int, list[str]]]:
    said = [process.communicate(timeout=60)[1] for process in processes]
    return [(process.returncode, lines.splitlines()) for process, lines in zip(processes, said, strict=True)]


def test_ranks_are_numbered_over_the_nodes(tmp_path: Path, port: int) -> None:
    body = (
        "pathlib.Path(f'env_{rank}').write_text(' '.join(os.environ[n] for n in ('WORLD_SIZE', 'LOCAL_RANK', 'MASTER_PORT')))"
    )
    assert [code for code, _ in ends(*(node(tmp_path, rank, port, body, nodes=3) for rank in (2, 0, 1)))] == [0, 0, 0]
    assert {(tmp_path / f'env_{rank}').read_text() for rank in (0, 1, 2)} == {f'3 0 {port}'}


@pytest.mark.parametrize('dying', [0, 1])
def test_a_death_on_one_node_starts_both_again(tmp_path: Path, port: int, dying: int) -> None:
    body = f'if rank == {dying} and attempt < 2: os.kill(os.getpid(), 9)\nif attempt < 2: time.sleep(60)'
    assert [code for code, _ in ends(*(node(tmp_path, rank, port, body, '--max-restarts', '2') for rank in (0, 1)))] == [0, 0]
    assert len(list(tmp_path.glob('started_*'))) == 6


@pytest.mark.parametrize('failing', [0, 1])
def test_the_first_error_is_said_on_every_node(tmp_path: Path, port: int, failing: int) -> None:
    body = f"if rank == {failing}: leave('wrong config', 'do this', 2); sys.exit(2)\ntime.sleep(60)"
    for code, said in ends(*(node(tmp_path, rank, port, body, '--max-restarts', '2') for rank in (0, 1))):
        assert (code, said[-2:]) == (2, ['error: wrong config', 'do this'])


def test_an_echo_of_a_death_elsewhere_is_not_the_first_error(tmp_path: Path, port: int) -> None:
    body = """
if rank:
    time.sleep(0.5); os.kill(os.getpid(), 9)
time.sleep(0.4); leave('connection reset', 'no idea', 1); sys.exit(1)
"""
    for code, said in ends(*(node(tmp_path, rank, port, body) for rank in (0, 1))):
        assert (code, said[-2]) == (1, 'error: rank 1 was killed by SIGKILL')


@pytest.mark.parametrize('asked', [0, 1])
def test_a_signal_to_one_launcher_ends_both(tmp_path: Path, port: int, asked: int) -> None:
    """The rank that hears it tells the other through a file, as ranks of a run do through a collective."""
    body = """
signal.signal(signal.SIGTERM, lambda *_: pathlib.Path('stop').touch())
pathlib.Path(f'ready_{rank}').touch()
while not pathlib.Path('stop').exists(): time.sleep(0.01)
time.sleep(6 * rank)  # a long checkpoint
pathlib.Path(f'end_{rank}').touch()
leave('stopped by a signal', 'go on', 1, stopped=True); sys.exit(1)
"""
    nodes = [node(tmp_path, rank, port, body, '--max-restarts', '2') for rank in (0, 1)]
    wait_for(tmp_path / 'ready_0', tmp_path / 'ready_1')
    nodes[asked].send_signal(signal.SIGTERM)
    for code, said in ends(*nodes):
        assert (code, said[-2:]) == (1, ['error: stopped by a signal', 'go on'])
    assert (tmp_path / 'end_1').exists() and not list(tmp_path.glob('started_*_1'))


def test_a_node_that_is_lost_is_waited_for_and_all_start_again(tmp_path: Path, port: int) -> None:
    body = "pathlib.Path(f'ready_{rank}').touch()\nif attempt == 0: time.sleep(60)"
    first, second = (node(tmp_path, rank, port, body, '--max-restarts', '1') for rank in (0, 1))
    wait_for(tmp_path / 'ready_0', tmp_path / 'ready_1')
    second.kill()
    second.communicate()
    again = node(tmp_path, 1, port, body, '--max-restarts', '1')
    (code, said), (code_again, _) = ends(first, again)
    assert (code, code_again) == (0, 0)
    assert any('the launcher of node 1 has gone; starting all ranks again' in line for line in said)


def test_a_leader_that_is_lost_ends_the_others(tmp_path: Path, port: int) -> None:
    body = "pathlib.Path(f'ready_{rank}').touch()\ntime.sleep(60)"
    first, second = (node(tmp_path, rank, port, body, '--max-restarts', '1') for rank in (0, 1))
    wait_for(tmp_path / 'ready_0', tmp_path / 'ready_1')
    first.kill()
    first.communicate()
    [(code, said)] = ends(second)
    assert (code, said[-2]) == (1, 'error: the launcher of node 0 has gone')


def test_launchers_of_different_shapes_do_not_begin(tmp_path: Path, port: int) -> None:
    first = node(tmp_path, 0, port, 'pass')
    other = launcher(
        tmp_path, 'pass', '--nnodes=2', '--node-rank=1', '--rdzv-endpoint', f'127.0.0.1:{port}', '--nproc-per-node=3'
    )
    [(code, said)] = ends(other)
    assert code == 2 and said[0].startswith('error: this launcher has 2 nodes and 6 ranks, 3 of them on each, and node 0 has')
    first.send_signal(signal.SIGTERM)  # it still waits
    [(code, said)] = ends(first)
    assert code == 1 and 'refused a launcher (node 1' in said[0] and said[-2] == 'error: stopped by a signal'


def test_a_port_that_is_taken_is_said(tmp_path: Path) -> None:
    with socket.create_server(('', 0)) as taken:
        [(code, said)] = ends(node(tmp_path, 0, taken.getsockname()[1] - 1, 'pass'))
    assert code == 2 and 'launchers meet on port' in said[0] and said[1] == 'Take another --master-port.'


def test_launchers_that_never_come_are_named(monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    monkeypatch.setattr(meeting, 'PATIENCE', 0.3)
    host = meeting.Host(Place(1, 3, launchers=3, address='127.0.0.1', port=port))
    with pytest.raises(RunFailure, match=r'the launchers of nodes 1, 2 did not come'):
        host.gather(lambda: False)
    host.close()
    with pytest.raises(RunFailure, match=r'node 0 did not answer at 127\.0\.0\.1'):
        meeting.Guest(Place(1, 3, launchers=3, index=1, address='127.0.0.1', port=port), lambda: False)


@pytest.mark.parametrize(
    'noise', [b'GET / HTTP/1.0\r\n\r\n', b'[1]\n', b'{"hello": 9}\n', b'\xff' * 70000, b'{"failed": 1}\n']
)
def test_strangers_do_not_disturb(monkeypatch: pytest.MonkeyPatch, port: int, noise: bytes) -> None:
    monkeypatch.setattr(meeting, 'LONGEST', 1000)
    host = meeting.Host(Place(1, 2, launchers=2, address='127.0.0.1', port=port))
    with socket.create_connection(('127.0.0.1', port + 1)) as stranger:
        stranger.sendall(noise)
        guest = meeting.Guest(Place(1, 2, launchers=2, index=1, address='127.0.0.1', port=port), lambda: False)
        host.gather(lambda: False)
        guest.send(done=True, attempt=0)
        heard, deadline = [], time.monotonic() + 10
        while not heard and time.monotonic() < deadline:
            heard = host.poll(0.1)
        assert heard == [(1, {'done': True, 'attempt': 0})]
        guest.close()
    host.close()
