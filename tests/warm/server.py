"""The warm process: imports the modules of all commands, then forks itself for each request."""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import gc
import importlib
import io
import json
import os
import runpy
import select
import shutil
import signal
import socket
import sys
import threading
import types
from pathlib import Path
from typing import Any

for module in (
    'numpy', 'PIL.Image', 'safetensors.torch', 'rich.progress', 'rich.table', 'todd', 'torch.distributed.launcher.api',
    'torch._dynamo', 'torch.utils.tensorboard',
):  # fmt: skip  # the optimizers import the compiler
    with contextlib.suppress(ImportError):  # an extra
        importlib.import_module(module)
for module in sys.argv[3:]:
    importlib.import_module(module)
if digits := sys.modules.get('vq.data.datasets.digits'):  # every small training reads them
    digits.load_digits()
os.fsync = os.fstat  # type: ignore[assignment]  # as in tests/conftest.py: a killed process leaves what it wrote
gc.freeze()  # collections of a fork do not look at all that again

FEW_DIGITS = 'FEW_DIGITS_OF_TESTS'  # in the environment of a program: how many there are of each split
PATH = sys.path[1:]  # without the folder of this file


def serve(door: str, lock: str) -> dict[str, Any]:
    """Accept requests until nobody has the pipe open and no fork runs. Returns in a fork only, with its request.

    A request costs one fork: copying the page tables of all that was imported is most of its time. This process waits for the
    forks, tells their clients how they ended, and kills a fork whose client was killed.
    """
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(door)
        listener.listen()
        running: dict[int, tuple[int, socket.socket]] = {}  # file descriptor of a fork: its process, and its client
        while True:
            clients = [client for _, client in running.values() if client.fileno() >= 0]
            ready = select.select([listener, *running, *clients, *([] if running else [sys.stdin])], [], [])[0]
            if sys.stdin in ready:
                leave(door, lock)
            for ended in [one for one in ready if one in running]:
                tell(*running.pop(ended))
                os.close(ended)
            for process, client in running.values():
                if client in ready:  # it says nothing more, so it was killed
                    os.kill(process, signal.SIGKILL)
                    client.close()
            if listener in ready:
                connection, _ = listener.accept()
                if job := request(connection):
                    process = os.fork()
                    if process == 0:
                        for number, (_, client) in running.items():
                            os.close(number)
                            client.close()
                        break
                    for stream in job['streams']:
                        os.close(stream)
                    running[os.pidfd_open(process)] = process, connection
                    say(connection, process)
                else:
                    connection.close()
    connection.close()
    for number, stream in enumerate(job.pop('streams')):
        os.dup2(stream, number)
        os.close(stream)
    return job


def request(connection: socket.socket) -> dict[str, Any] | None:
    """What a client asks for, with its streams; None if it only looks whether somebody is here."""
    mark, streams, _, _ = socket.recv_fds(connection, 1, 3)
    with connection.makefile('r') as lines:
        line = lines.readline() if mark else ''
    if line.endswith('\n'):
        return {**json.loads(line), 'streams': streams}
    for stream in streams:  # it was killed meanwhile
        os.close(stream)
    return None


def tell(process: int, client: socket.socket) -> None:
    _, status = os.waitpid(process, 0)
    if client.fileno() >= 0:
        say(client, os.waitstatus_to_exitcode(status))
        client.close()


def say(client: socket.socket, number: int) -> None:
    with contextlib.suppress(OSError):  # it was killed
        client.sendall(f'{number}\n'.encode())


def leave(door: str, lock: str) -> None:
    """End, with the folder, unless somebody has opened the pipe again; whoever looks for this process has the lock."""
    with open(lock, 'w') as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        if select.select([sys.stdin], [], [], 0)[0]:
            shutil.rmtree(Path(door).parent)
            os._exit(0)


def become(name: str, program: str, arguments: list[str], folder: str, environment: dict[str, str]) -> None:
    """Make this process look as if a shell had started it. Its ranks and children begin with ``program``, warm again."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    if digits and FEW_DIGITS in environment:
        digits.SIZES.update(json.loads(environment[FEW_DIGITS]))
    option = arguments[0] if name == 'python' and arguments[0] in ('-u', '-P') else ''
    unbuffered, words = option == '-u', arguments[1:] if option else arguments
    modules = environment.get('PYTHONPATH', '').split(os.pathsep)
    installed = Path(sys.executable).parent
    sys.executable = program
    own = [] if option == '-P' else [folder if name == 'python' else str(installed)]
    sys.path[:] = [*own, *filter(None, modules), *PATH]
    at_once = unbuffered or bool(environment.get('PYTHONUNBUFFERED'))
    sys.stdin, sys.stderr = os.fdopen(0), os.fdopen(2, 'w', 1)
    sys.stdout = io.TextIOWrapper(os.fdopen(1, 'wb', 0 if at_once else -1), write_through=at_once)
    if name != 'python':
        sys.orig_argv = [sys.executable, str(installed / name), *words]
        sys.argv = sys.orig_argv[1:]
        if name == 'vq':
            runpy.run_module('vq', run_name='__main__')
        else:
            runpy.run_path(sys.argv[0], run_name='__main__')
        return
    sys.orig_argv = [sys.executable, *arguments]
    if words[0] == '-m':
        sys.argv = words[1:]
        sys.modules.pop(words[1], None)  # if another module imported it: a cold process would not have it yet
        runpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True)
    elif words[0] == '-c':
        sys.argv, sys.path[: len(own)] = ['-c', *words[2:]], [''] * len(own)
        sys.modules['__main__'] = main = types.ModuleType('__main__')
        exec(compile(words[1], '<string>', 'exec'), vars(main))
    else:
        sys.argv, sys.path[: len(own)] = words, [str(Path(words[0]).resolve().parent)] * len(own)
        runpy.run_path(words[0], run_name='__main__')


def end(code: Any) -> None:
    """End as the interpreter does, but do not take apart the modules of torch one by one, which costs a third of a second."""
    if code is not None and not isinstance(code, int):
        print(code, file=sys.stderr)
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0 if code is None else code & 0xFF if isinstance(code, int) else 1)


if __name__ == '__main__':
    job = serve(*sys.argv[1:3])
    try:
        become(**job)
    except SystemExit as ended:
        end(ended.code)
    end(None)
