"""Launchers of several machines tell each other what happens to their ranks: JSON objects over TCP, one a line.

The launcher of node 0 decides, and listens one port above the one that the ranks use:

    to it     hello (index, world, processes)   failed | done | asked | stopped, each with its attempt
    from it   start (attempt, port, run)        stop (seconds, gently)        end (the first failure, or nothing)
"""

from __future__ import annotations

import contextlib
import json
import selectors
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

from vq.cli.cluster import Place
from vq.core.errors import RunFailure, UserError

Message = dict[str, Any]

PATIENCE = 600.0  # seconds in which all launchers must have come
LONGEST = 1 << 20  # bytes of a message
KEEPALIVE = (('TCP_KEEPIDLE', 15), ('TCP_KEEPINTVL', 5), ('TCP_KEEPCNT', 6))  # a machine without power is missed after 45 s


class Line:
    """One connection."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket, self.rest, self.open = connection, b'', True
        connection.settimeout(10.0)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in KEEPALIVE:
            if hasattr(socket, name):
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)

    def send(self, message: Message) -> None:
        try:
            self.socket.sendall(json.dumps(message).encode() + b'\n')
        except OSError:
            self.open = False

    def receive(self) -> list[Message]:
        """What has come; to be called when there is something to read."""
        try:
            data = self.socket.recv(65536)
            *lines, self.rest = (self.rest + data).split(b'\n')
            messages = [json.loads(line) for line in lines]
        except (OSError, ValueError):
            data, messages = b'', []
        if not data or len(self.rest) > LONGEST or not all(isinstance(message, dict) for message in messages):
            self.open = False
        return [message for message in messages if isinstance(message, dict)]

    def close(self) -> None:
        self.open = False
        self.socket.close()


class Host:
    """What the launcher of node 0 sees of the others."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.lines: dict[int, Line] = {}  # by node
        self.strangers: list[Line] = []  # have not said who they are
        self.server: socket.socket | None = None
        if place.launchers > 1:
            assert place.port is not None
            self.server = listen(place.port + 1)

    def close(self) -> None:
        """After the others have hung up: a connection closed with unread words in it would take away the last ones said."""
        for line in self.lines.values():
            with contextlib.suppress(OSError):
                line.socket.shutdown(socket.SHUT_WR)
        deadline = time.monotonic() + 5.0
        while self.lines and time.monotonic() < deadline:
            self.poll(0.05)
        for line in [*self.lines.values(), *self.strangers]:
            line.close()
        if self.server is not None:
            self.server.close()

    def gather(self, give_up: Callable[[], bool]) -> None:
        """Wait until all are there, or ``give_up``."""
        deadline = time.monotonic() + PATIENCE
        while len(self.lines) < self.place.launchers - 1 and not give_up():
            self.poll(0.1)
            if time.monotonic() > deadline:
                missing = [str(index) for index in range(1, self.place.launchers) if index not in self.lines]
                raise RunFailure(
                    f'the launchers of nodes {", ".join(missing)} did not come within {PATIENCE:.0f} s',
                    f'They must reach {self.place.address}:{(self.place.port or 0) + 1}; look at what they say.',
                )

    def tell(self, **message: object) -> None:
        for line in self.lines.values():
            line.send(message)

    def poll(self, seconds: float) -> list[tuple[int, Message]]:
        """What the others say within this time; ``{'lost': True}`` of one that has gone, or was started anew."""
        if self.server is None:
            time.sleep(seconds)
            return []
        heard: list[tuple[int, Message]] = []
        with selectors.DefaultSelector() as selector:
            selector.register(self.server, selectors.EVENT_READ)
            for line in [*self.lines.values(), *self.strangers]:
                selector.register(line.socket, selectors.EVENT_READ, line)
            ready = selector.select(seconds)
        for line in [key.data for key, _ in ready if key.data is not None]:
            messages = line.receive()
            if line in self.strangers:
                heard += self._greet(line, messages)
            else:
                heard += [(index, message) for index, one in self.lines.items() if one is line for message in messages]
        if any(key.data is None for key, _ in ready):
            with contextlib.suppress(OSError):  # it has gone again
                self.strangers.append(Line(self.server.accept()[0]))
        for index in [index for index, line in self.lines.items() if not line.open]:
            self.lines.pop(index).close()
            heard.append((index, {'lost': True}))
        for line in [line for line in self.strangers if not line.open]:
            self.strangers.remove(line)
            line.close()
        return heard

    def _greet(self, line: Line, messages: list[Message]) -> list[tuple[int, Message]]:
        if not messages:
            return []
        index, mine = messages[0].get('hello'), shape_of(self.place)
        if not isinstance(index, int) or not 0 < index < self.place.launchers or messages[0].get('shape') != mine:
            line.send({'refused': f'node 0 has {mine}'})
            line.open = False
            said = f'node {index}, {messages[0].get("shape")}'
            print(f'auto_torchrun: refused a launcher ({said}): here are {mine}', file=sys.stderr, flush=True)
            return []
        self.strangers.remove(line)
        before = self.lines.get(index)
        self.lines[index] = line
        if before is None:
            return []
        before.close()
        return [(index, {'lost': True})]


class Guest:
    """What another launcher sees of node 0's."""

    def __init__(self, place: Place, give_up: Callable[[], bool]) -> None:
        assert place.port is not None
        self.line = self._connect(place.address, place.port + 1, give_up)
        if self.line is not None:
            self.line.send({'hello': place.index, 'shape': shape_of(place)})
        self.mine = shape_of(place)

    @staticmethod
    def _connect(address: str, port: int, give_up: Callable[[], bool]) -> Line | None:
        deadline = time.monotonic() + PATIENCE
        while not give_up():
            try:
                return Line(socket.create_connection((address, port), timeout=5.0))
            except OSError as error:
                if time.monotonic() > deadline:
                    raise RunFailure(
                        f'node 0 did not answer at {address}:{port} within {PATIENCE:.0f} s: {error}',
                        'Is it started, is --master-addr (MASTER_ADDR) its name, and may its ports be reached?',
                    ) from error
                time.sleep(0.2)
        return None

    def send(self, **message: object) -> None:
        assert self.line is not None
        self.line.send(message)

    def poll(self, seconds: float) -> list[Message]:
        """What node 0 says within this time; ``{'lost': True}`` if it has gone."""
        assert self.line is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self.line.socket, selectors.EVENT_READ)
            messages = self.line.receive() if selector.select(seconds) else []
        for message in messages:
            if 'refused' in message:
                raise UserError(
                    f'this launcher has {self.mine}, and {message["refused"]}',
                    'Start the same command on all nodes, each with a rank of its own.',
                )
        return messages if self.line.open or any('end' in message for message in messages) else [*messages, {'lost': True}]

    def close(self) -> None:
        if self.line is not None:
            self.line.close()


def shape_of(place: Place) -> str:
    """What launchers must agree on."""
    return f'{place.launchers} nodes and {place.world} ranks, {place.processes} of them on each'


def listen(port: int) -> socket.socket:
    both = socket.has_dualstack_ipv6()
    try:
        family = socket.AF_INET6 if both else socket.AF_INET
        return socket.create_server(('', port), family=family, dualstack_ipv6=both)
    except OSError as error:
        raise UserError(
            f'launchers meet on port {port} of node 0, which cannot be had: {error.strerror}', 'Take another --master-port.'
        ) from error
