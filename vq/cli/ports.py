"""A TCP port that nobody else has."""

from __future__ import annotations

import contextlib
import socket
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def reserved_port() -> Iterator[int]:
    """A free port that the kernel gives to nobody else while this is open, and that a child can listen on.

    Linux lets two sockets with SO_REUSEADDR hold one port as long as only one of them listens. Elsewhere the port is let
    go at once, and hoped to stay free until it is taken.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(('', 0))
        port = int(holder.getsockname()[1])
        if sys.platform != 'linux':
            holder.close()
        yield port


def free_port() -> int:
    """A port that is free at this moment."""
    with reserved_port() as port:
        return port
