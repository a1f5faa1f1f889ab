"""Reading a file in a process of its own: with a deadline, a bound on memory, and a watch on what it does besides reading."""

from __future__ import annotations

import dataclasses
import os
import resource
import select
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vq.core.errors import UserError
from vq.data.decode import BadImage

SECONDS = 120.0  # after which a case counts as a hang; other work on the machine may slow it down
CPU_SECONDS = 20  # of the case alone
_SLACK = 2**30  # address space beyond the bound: threads and memory maps take some that is never used
_FORBIDDEN = ('os.system', 'os.exec', 'os.fork', 'os.posix_spawn', 'os.spawn', 'subprocess.Popen', 'socket.connect')


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of one file. ``kind``: refused, accepted, or the name of a failure."""

    kind: str
    text: str  # the message, the digest of what was read, or what went wrong
    peak: int = 0  # bytes of memory beyond those at the start


def read_apart(read: Callable[[Path], str], path: Path, bound: int) -> Outcome:
    """``read(path)`` in a child process."""
    receiving, sending = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(receiving)
        _be_the_child(read, path, bound, sending)
    os.close(sending)
    said, late = _listen(receiving)
    if late:
        os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    os.close(receiving)
    if late:
        return Outcome('hang', f'nothing for {SECONDS:.0f} seconds')
    kind, _, rest = said.partition('\n')
    peak, _, text = rest.partition('\n')
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGXCPU:
        return Outcome('hang', f'nothing after {CPU_SECONDS} seconds of computing')
    if not kind:
        return Outcome('death', f'the process died with status {status}')
    if int(peak) > bound and kind in ('refused', 'accepted'):
        return Outcome('memory', f'{int(peak):,} bytes, and {bound:,} are allowed', int(peak))
    return Outcome(kind, text, int(peak))


def _listen(pipe: int) -> tuple[str, bool]:
    """All that the child says, and whether it was late."""
    parts: list[bytes] = []
    while select.select([pipe], [], [], SECONDS)[0]:
        part = os.read(pipe, 65536)
        if not part:
            return b''.join(parts).decode(errors='replace'), False
        parts.append(part)
    return '', True


def _be_the_child(read: Callable[[Path], str], path: Path, bound: int, pipe: int) -> None:
    done: list[str] = []
    try:
        os.environ['XDG_CACHE_HOME'] = f'{os.devnull}/none'  # no record of what was checked
        nowhere = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(nowhere, stream)
        limit = _memory('VmSize') + bound + _SLACK
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS + 1))
        before = _memory('VmRSS')
        watching = [True]
        sys.addaudithook(lambda event, arguments: _watch(event, arguments, done) if watching else None)
        kind, text = _judge(read, path)
        watching.clear()
        if done:
            kind, text = 'code', ', '.join(done)
        os.write(pipe, f'{kind}\n{max(0, _memory("VmHWM") - before)}\n{text[:2000]}'.encode(errors='replace'))
    finally:
        os._exit(0)


def _judge(read: Callable[[Path], str], path: Path) -> tuple[str, str]:
    try:
        return 'accepted', read(path)
    except (UserError, BadImage) as error:
        text = str(error)
        return ('refused', text) if path.name in text or str(path.parent) in text else ('no name', text)
    except MemoryError as error:
        return 'memory', f'MemoryError {error}'
    except BaseException as error:  # SystemExit too: any of them would be a traceback or a silent end
        return 'traceback', f'{type(error).__name__}: {error}'


def _watch(event: str, arguments: tuple[Any, ...], done: list[str]) -> None:
    """Note what no reader does: run a program, open a connection, write a file."""
    if event in _FORBIDDEN:
        done.append(f'{event} {arguments[:1]!r:.80}')
    elif event == 'open' and arguments[0] != os.devnull:
        flags = arguments[2] if isinstance(arguments[2], int) else 0
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            done.append(f'writes {arguments[0]!r:.80}')


def _memory(field: str) -> int:
    """A number of /proc/self/status in bytes."""
    lines = Path('/proc/self/status').read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(f'{field}:'))) * 1024
