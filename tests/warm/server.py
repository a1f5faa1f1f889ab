"""The warm process: imports the modules of all commands, then forks itself for each request."""

from __future__ import annotations

import io
import json
import os
import runpy
import select
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import numpy  # noqa: F401
import PIL.Image  # noqa: F401
import safetensors.torch  # noqa: F401
import torch._dynamo  # noqa: F401  # which every optimizer imports

PATH = sys.path[1:]  # without the folder of this file


def serve(door: str) -> dict[str, Any]:
    """Accept requests forever. Returns in a fork only, with its request."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(door)
        listener.listen()
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # copies that have ended are not waited for
        while True:
            ready, _, _ = select.select([listener, sys.stdin], [], [])
            if sys.stdin in ready:  # whoever opened the door is gone
                os._exit(0)
            connection, _ = listener.accept()
            if os.fork() == 0:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                break
            connection.close()
    return attend(connection)


def attend(connection: socket.socket) -> dict[str, Any]:
    """Fork again: one process reports how the other ends; the other takes over the streams of the client."""
    mark, streams, _, _ = socket.recv_fds(connection, 1, 3)
    if not mark:  # only a look whether somebody is here
        os._exit(0)
    lines = connection.makefile('rw')
    job: dict[str, Any] = json.loads(lines.readline())
    process = os.fork()
    if process:
        print(process, file=lines, flush=True)
        _, status = os.waitpid(process, 0)
        print(os.waitstatus_to_exitcode(status), file=lines, flush=True)
        os._exit(0)
    lines.close()
    connection.close()
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    return job


def become(name: str, arguments: list[str], folder: str, environment: dict[str, str]) -> None:
    """Make this process look as if a shell had started it."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    modules = environment.get('PYTHONPATH', '').split(os.pathsep)
    installed = Path(sys.executable).parent
    sys.path[:] = [folder if name == 'python' else str(installed), *filter(None, modules), *PATH]
    at_once = bool(environment.get('PYTHONUNBUFFERED'))
    sys.stdin, sys.stderr = os.fdopen(0), os.fdopen(2, 'w', 1)
    sys.stdout = io.TextIOWrapper(os.fdopen(1, 'wb', 0 if at_once else -1), write_through=at_once)
    if name == 'auto_torchrun':
        sys.argv = [str(installed / name), *arguments]
        runpy.run_path(sys.argv[0], run_name='__main__')
    elif name == 'vq':
        sys.argv = [str(installed / name), *arguments]
        runpy.run_module('vq', run_name='__main__')
    else:
        sys.argv = arguments[1:]
        runpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True)


if __name__ == '__main__':
    become(**serve(sys.argv[1]))
