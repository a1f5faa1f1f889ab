"""torch's elastic agent, one per node: it starts the ranks of its node, and restarts all ranks when one dies.

Under torchrun all attempts share one store, so new ranks read addresses of dead ranks. Each agent counts restarts by itself,
bad usage is retried, and ranks have 30 s to save. Here node 0 serves a new store for every attempt, and one store for the
launch. In the latter, nodes record per attempt: the nodes that have joined, the first failure, and the nodes that are done.
"""

import contextlib
import json
import os
import signal
import socket
import sys
import tempfile
import time
from pathlib import Path

from torch.distributed import DistError, HashStore, PrefixStore, Store, TCPStore  # type: ignore[attr-defined]
from torch.distributed.elastic.agent.server.api import RunResult, WorkerGroup, WorkerSpec, WorkerState
from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.rendezvous import RendezvousInfo, RendezvousStoreInfo
from torch.distributed.elastic.rendezvous.static_tcp_rendezvous import StaticTCPRendezvous
from torch.distributed.elastic.utils.store import barrier

from vq.core import child
from vq.launch import failures
from vq.launch.failures import GO_ON, Failure
from vq.launch.place import Place

PATIENCE = 600.0  # seconds to wait for all launchers to join
LONG, SHORT = 120.0, 5.0  # grace period in seconds once the first rank has ended: after a signal, after a failure
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


class Rendezvous(StaticTCPRendezvous):
    """The rendezvous of the launchers of all nodes, and their shared store."""

    def __init__(self, place: Place, most: int) -> None:
        super().__init__(place.address, place.port, place.node, place.nodes, '', int(PATIENCE))
        self.shape = f'{place.nodes} nodes and {place.nodes * place.processes} ranks, {place.processes} of them on each'
        self.attempt, self.most, self.joined = 0, most, False
        self.store: Store = HashStore()  # a local one, until connected to node 0
        self.notes: Store = self.store  # keys of the current attempt

    def missing(self, what: str) -> list[str]:
        return [str(node) for node in range(self.world_size) if not self.notes.check([f'{what} {node}'])]

    def next_rendezvous(self) -> RendezvousInfo:
        if not self.run_id:
            self._connect()
        while self.notes.add(f'come {self.rank}', 1) > 1:  # this launcher replaces one that was lost
            self.advance(self.agree(Failure(f'the launcher of node {self.rank} has gone', GO_ON, killed=True)))
        deadline = time.monotonic() + PATIENCE
        while missing := self.missing('come'):
            if failure := self.failure():
                self.advance(failure)
                return self.next_rendezvous()
            if time.monotonic() > deadline:
                late = f'the launchers of nodes {", ".join(missing)} did not join within {PATIENCE:.0f} s'
                raise Failure(late, 'See the output of these launchers.')
            time.sleep(0.1)
        if self.rank == 0:
            self.ranks = TCPStore('localhost', 0, is_master=True, wait_for_workers=False)
            self.ranks.set('vq/launch', self.run_id)  # vq.cli.restarts reads it
            self.notes.set('port', str(self.ranks.port))
        self.joined, address = True, RendezvousStoreInfo(self.master_addr, int(self.notes.get('port')))
        return RendezvousInfo(self.notes, self.rank, self.world_size, address)

    def _connect(self) -> None:
        deadline, host, port = time.monotonic() + PATIENCE, self.master_addr, self.master_port
        while self.rank:  # probe first: a TCPStore that cannot connect prints a page of C++ stack frames
            with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=2.0):
                break
            if time.monotonic() > deadline:
                hint = 'Is it started, is --master-addr (MASTER_ADDR) its host name, and are its ports reachable?'
                raise Failure(f'node 0 did not answer at {host}:{port} within {PATIENCE:.0f} s', hint)
            time.sleep(0.2)
        try:
            self.store = TCPStore(host if self.rank else 'localhost', port, is_master=not self.rank, wait_for_workers=False)
        except DistError as error:
            raise Failure(f'the rendezvous cannot use port {port} of node 0', 'Give another --master-port.', 2) from error
        if (theirs := self.store.compare_set('shape', '', self.shape).decode()) != self.shape:
            hint = 'Start the same command on all nodes, each with its own --node-rank.'
            raise Failure(f'this launcher has {self.shape}, and node 0 has {theirs}', hint, 2)
        self.run_id = self.store.compare_set('launch', '', os.urandom(16).hex()).decode()
        self.notes = PrefixStore('0', self.store)

    def failure(self) -> Failure | None:
        """The first failure of this attempt on any node, if there is one."""
        return Failure(**json.loads(self.notes.get('failure'))) if self.notes.check(['failure']) else None

    def agree(self, failure: Failure) -> Failure:
        """Record ``failure``, unless this attempt has one already. The first failure is returned."""
        return Failure(**json.loads(self.notes.compare_set('failure', '', json.dumps(vars(failure)))))

    def advance(self, failure: Failure) -> None:
        """Go to the next attempt. Raise ``failure`` after a stop, after bad usage, and if no restart is left."""
        if failure.stopped or failure.exit_code == 2 or self.attempt >= self.most or self.store.check(['asked']):
            raise failure
        self.attempt += 1
        self.notes = PrefixStore(str(self.attempt), self.store)


class Agent(LocalElasticAgent):
    """An agent that finds the cause of a failed attempt, and sets the grace period of its ranks."""

    asked = hurried = False  # a signal was received; a second Ctrl-C was received
    failure: Failure | None = None
    message = Path()  # the file with the error message of a rank

    def __init__(self, place: Place, command: list[str], most: int, folder: str) -> None:
        self.rendezvous, self.folder = Rendezvous(place, most), folder
        local = [f'{name}={value}' for name, value in place.variables(0, 0).items() if name.startswith('LOCAL_')]
        words = [*(['/usr/bin/env', *local] if place.task else []), *child.command(*command)]  # torch sets LOCAL_RANK=0
        words = [word.replace('$', '$$') for word in words]  # torch substitutes templates in arguments
        spec = WorkerSpec('rank', place.processes, self.rendezvous, None, words[0], tuple(words[1:]), most)
        super().__init__(spec, DefaultLogsSpecs(folder))

    def hear(self, number: int, frame: object) -> None:
        self.hurried = self.hurried or (self.asked and number == signal.SIGINT)
        if not self.asked:
            self.asked = True
            raise SignalException('', signal.SIGTERM if number == signal.SIGUSR1 else signal.Signals(number))

    def _start_workers(self, worker_group: WorkerGroup) -> dict[int, int]:
        self.failure, self._remaining_restarts = None, self.rendezvous.most - self.rendezvous.attempt
        self.message = Path(self.folder, f'error_{self.rendezvous.attempt}.json')
        os.environ[failures.VARIABLE] = str(self.message)
        handlers = {**dict.fromkeys(SIGNALS, self.hear), signal.SIGHUP: signal.getsignal(signal.SIGHUP)}  # as nohup set it
        started: dict[int, int] = super()._start_workers(worker_group)
        self._pcontext._close = self._end  # type: ignore[union-attr, method-assign]
        for number, handler in handlers.items():  # override the handlers of torch
            signal.signal(number, handler)
        return started

    def _end(self, death_sig: signal.Signals, timeout: float = 0) -> None:
        """End the ranks. torch's own method gives them 30 s, and sends the signal to data loader workers too."""
        handlers = self._pcontext.subprocess_handlers  # type: ignore[union-attr]
        ranks = {worker.global_rank: handlers[worker.local_rank].proc for worker in self._worker_group.workers}
        fallen = {rank: code for rank, process in ranks.items() if (code := process.poll())}
        with contextlib.suppress(DistError):
            if self.asked:
                self.rendezvous.store.set('asked', '')
            elif fallen and self.failure is None:
                self.failure = failures.first(fallen, failures.read(self.message))
                echo = time.monotonic() + float(not self.failure.killed and self.rendezvous.world_size > 1)
                while time.monotonic() < echo and self.rendezvous.failure() is None:  # a death elsewhere?
                    time.sleep(0.05)
                self.failure = self.rendezvous.agree(self.failure)
        gently = self.failure is not None and self.failure.stopped  # the ranks end by themselves
        for process in ranks.values() if self.asked or not gently else ():
            process.send_signal(death_sig)  # no effect on a process that has ended
        deadline, seconds = float('inf'), LONG if self.asked or gently else SHORT
        while (left := [p for p in ranks.values() if p.poll() is None]) and not self.hurried and time.monotonic() < deadline:
            if not self.asked or len(left) < len(ranks):
                deadline = min(deadline, time.monotonic() + seconds)
            time.sleep(0.02)
        for process in ranks.values():
            if process.poll() != 0:  # a rank that ended with 0 may leave processes running on purpose
                with contextlib.suppress(ProcessLookupError, PermissionError):  # the process group is empty
                    os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        # the process ids may be reused, so they must not get further signals
        self._pcontext._close = lambda **_: None  # type: ignore[union-attr, method-assign]

    def _monitor_workers(self, worker_group: WorkerGroup) -> RunResult:
        result: RunResult = super()._monitor_workers(worker_group)
        if failure := self.failure or self.rendezvous.failure():
            self.failure = failure
            self.rendezvous.advance(failure)
            if self.rendezvous.rank == 0:
                again = f'starting all ranks again (restart {self.rendezvous.attempt} of {self.rendezvous.most})'
                print(f'auto_torchrun: {failure.message}; {again}', file=sys.stderr, flush=True)
            return RunResult(WorkerState.FAILED)
        if result.state == WorkerState.SUCCEEDED:
            self.rendezvous.notes.set(f'done {self.rendezvous.rank}', '')
            if self.rendezvous.missing('done'):  # the other nodes may still fail and need another attempt
                return RunResult(WorkerState.HEALTHY)
        return result


def run(place: Place, command: list[str], most: int) -> int:
    """Start attempts until all ranks of all nodes are done. The last failure is raised if no restart is left."""
    os.environ.setdefault('PYTHONFAULTHANDLER', '1')  # print the Python stack of a crash in native code
    with tempfile.TemporaryDirectory(prefix='vq-') as folder:
        agent = Agent(place, command, most, folder)
        rendezvous = agent.rendezvous
        for number in SIGNALS:
            signal.signal(number, agent.hear)
        try:
            try:
                agent.run()
            except SignalException:
                agent.failure = failures.read(agent.message) or Failure('stopped by a signal', GO_ON, stopped=True)
                while True:  # other nodes may be in a later attempt already
                    rendezvous.advance(rendezvous.agree(agent.failure))
        except DistError as error:
            raise Failure('the launcher of node 0 has gone', f'See its output. {GO_ON}') from error
        finally:
            if rendezvous.joined:  # node 0 serves the store, so it waits for nodes that still write checkpoints
                stopping = agent.asked or (agent.failure is not None and agent.failure.stopped)
                with contextlib.suppress(DistError):
                    barrier(rendezvous.store, place.nodes, 'left', LONG if stopping else SHORT)
    return 0
