"""The program that a shell starts: requests a fork of the warm process, passes on its own state, and ends like the fork."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys

FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
PASSED = (('-u',), ('-P',))


def is_served(arguments: tuple[str, ...]) -> bool:
    """Whether these are a module, a text or a script to run, without options of the interpreter but one of ``PASSED``."""
    arguments = arguments[1:] if arguments[:1] in PASSED else arguments
    return arguments[:1] in (('-m',), ('-c',)) or (bool(arguments) and not arguments[0].startswith('-'))


def main(door: str, name: str, *arguments: str) -> None:
    if name == 'python' and not is_served(arguments):
        os.execv(sys.executable, [sys.executable, *arguments])
    signal.pthread_sigmask(signal.SIG_BLOCK, FORWARDED)  # until they can be forwarded
    program = os.path.join(os.path.dirname(door), 'python')
    job = {'name': name, 'program': program, 'arguments': arguments, 'folder': os.getcwd(), 'environment': dict(os.environ)}
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(door)
        socket.send_fds(connection, [b'.'], [0, 1, 2])
        with connection.makefile('rw') as lines:
            print(json.dumps(job), file=lines, flush=True)
            process = int(lines.readline())
            for number in FORWARDED:
                signal.signal(number, lambda number, _: os.kill(process, number))
            signal.pthread_sigmask(signal.SIG_UNBLOCK, FORWARDED)
            status = int(lines.readline())
    if status < 0:  # ended by a signal: so are we
        if -status in FORWARDED:
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    sys.exit(status)


main(*sys.argv[1:])
