"""One training per NAME: ``NAME/lock.json``, held by the first rank of ``vq.train`` while it trains.

The first rank holds the lock for all ranks, also where the ranks were started by torchrun, by srun or by nothing at all, so it
is not the launcher that takes it. The file names the launch and the process of its launcher: a restart of the same launch
enters again, and as long as the launcher lives, the lock is held in the seconds between two attempts, too.

Two things say whether the owner lives. A POSIX record lock on the file ends with the process that took it, however that ends,
and is not inherited by its workers; it is valid for all processes of one machine, and on shared file systems with locking. The
content (host, boot, process id and its start time, launch) decides where the record lock cannot: the launcher of an owner
that died, a file system without locks, another host. A lock whose owner has ended is taken over, with a message. The
lock of another host is not provably stale, except if SLURM has started the job again, or if the host of that name was started
again (a reboot, or a pod that was replaced); otherwise the error says where to look and which file to delete.

Only ``vq.train`` asks for the lock, and what deletes checkpoints: commands that read a run work beside a training. ``is_held``
looks without taking it, so that a training that starts in this moment is not refused.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shlex
import socket
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vq.core.errors import UserError
from vq.io.writer import disk_errors

FILE = 'lock.json'
PATIENCE = 10.0  # seconds in which the first rank of an earlier attempt of the same launch must have ended
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}

_held: set[Path] = set()  # by this process, which does not see its own record locks

Record = dict[str, Any]


@contextlib.contextmanager
def held(folder: Path, launch: str | None) -> Iterator[list[str]]:
    """Hold the lock of a run folder; yields what to say about it. An error, with nothing changed, if another one holds it."""
    path, made = folder / FILE, _make(folder)
    try:
        file, said = _take(path, launch)
    except BaseException:
        _remove(made)
        raise
    _held.add(path.resolve())
    again = False
    try:
        yield said
    except BaseException as error:
        again = launch is not None and getattr(error, 'exit_code', 1) != 2 and _restarts_left()
        raise
    finally:
        _held.discard(path.resolve())
        if not again:  # else the restart enters by its launch, and until then the launcher holds the lock
            path.unlink(missing_ok=True)
            _remove(made)
        os.close(file)


def is_held(folder: Path) -> bool:
    """Whether a training holds the run, or a launcher can start its ranks again, or another host may hold it."""
    path = folder / FILE
    if path.resolve() in _held:
        return True  # and the file is not opened: closing it would free the record lock of this process
    try:
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        return _holder(path, _read(file), _is_free(file), None) is not None
    finally:
        os.close(file)


def _is_free(file: int) -> bool | None:
    """Whether no other process has the record lock; None where that cannot be asked."""
    form = 'qqihh' if sys.platform == 'darwin' else 'hhqqi'
    wanted = (0, 0, 0, fcntl.F_WRLCK, os.SEEK_SET) if sys.platform == 'darwin' else (fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    try:
        found = struct.unpack(form, fcntl.fcntl(file, fcntl.F_GETLK, struct.pack(form, *wanted)))
    except OSError:
        return None
    return bool((found[3] if sys.platform == 'darwin' else found[0]) == fcntl.F_UNLCK)


def _take(path: Path, launch: str | None) -> tuple[int, list[str]]:
    if path.resolve() in _held:
        raise UserError(f'this process already trains the run {path.parent}', 'Wait for its end, or choose another NAME.')
    deadline = time.monotonic() + PATIENCE
    while True:
        with disk_errors(path):
            file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            locked, there = _lock(file), _read(file)
            if not _is_current(file, path):
                os.close(file)  # the owner has just ended and removed it
                continue
            why = _holder(path, there, locked, launch)
            if why is None:
                with disk_errors(path):
                    _write(file, _own(launch))
                return file, _taken_over(path, there, launch)
        except BaseException:
            os.close(file)
            raise
        os.close(file)
        if launch is None or there.get('launch') != launch or time.monotonic() > deadline:
            raise why
        time.sleep(0.1)


def _holder(path: Path, there: Record, locked: bool | None, launch: str | None) -> UserError | None:
    """The error that names the holder of the lock; None if the lock is free or stale. ``locked``: see ``_lock``."""
    run, place = path.parent, f'{path} is the lock.'
    who = f'process {there.get("pid", "?")} on {there.get("host", "?")}, since {there.get("since", "?")}'
    running = UserError(f'another training holds the run {run}: {who}', f'Wait for its end, or choose another NAME. {place}')
    if locked is False:
        return running
    if not there or (launch is not None and there.get('launch') == launch):
        return None
    here = _identity()
    if _same(there, here, 'boot'):
        visible = _same(there, here, 'processes')  # not another container
        if locked is None and (not visible or _lives(there.get('pid'), there.get('started'))):
            return running
        launcher = there.get('launcher') or {}
        if visible and _lives(launcher.get('pid'), launcher.get('started')):
            return UserError(
                f'another training holds the run {run}: its launcher, process {launcher.get("pid")} on {there.get("host")}, '
                'still runs and can start its ranks again',
                f'Wait for its end, or choose another NAME. {place}',
            )
        return None
    if _same(there, here, 'host') and not str(here['host']).startswith('localhost'):
        return None
    if _same(there, here, 'job') and int(here['restart'] or 0) > int(there.get('restart') or 0):
        return None
    return UserError(
        f'another host holds the run {run}: {who}. Whether it still trains cannot be seen from {here["host"]}',
        f'Look on {there.get("host")}. If that process has ended, delete {path} and repeat the command.',
    )


def _taken_over(path: Path, there: Record, launch: str | None) -> list[str]:
    if not there or (launch is not None and there.get('launch') == launch):
        return []
    who = f'process {there.get("pid")} on {there.get("host")}, since {there.get("since")}'
    return [f'the lock of {who}, is taken over: that process has ended without releasing it']


# the file


def _read(file: int) -> Record:
    """The content. It is read through this descriptor only: closing any other one of this file would free the record lock."""
    try:
        record = json.loads(os.pread(file, 1 << 16, 0))
    except ValueError:  # new, or its owner was killed while it wrote it
        return {}
    return record if isinstance(record, dict) else {}


def _write(file: int, record: Record) -> None:
    os.ftruncate(file, 0)
    os.pwrite(file, (json.dumps(record, indent=2) + '\n').encode(), 0)
    os.fsync(file)


def _lock(file: int) -> bool | None:
    """Whether this process has the record lock now; None if the file system has no locks."""
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return None
        if error.errno in (errno.EAGAIN, errno.EACCES):
            return False
        raise
    return True


def _is_current(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), os.stat(path))
    except FileNotFoundError:
        return False


def _make(folder: Path) -> list[Path]:
    """Make the folder of a run; returns the folders that did not exist, the innermost first."""
    made = []
    for place in (folder, *folder.parents):
        if place.exists():
            break
        made.append(place)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f'the folder {folder} cannot be made: {error.strerror}', 'Choose another place with --work-dir.'
        ) from error
    return made


def _remove(made: list[Path]) -> None:
    """Remove folders that are still empty."""
    with contextlib.suppress(OSError):
        for place in made:
            place.rmdir()


# processes


def _own(launch: str | None) -> Record:
    parent = os.getppid()
    launcher = None if launch is None else {'pid': parent, 'started': _started(parent)}
    return {
        **_identity(),
        'pid': os.getpid(),
        'started': _started(os.getpid()),
        'launch': launch,
        'launcher': launcher,
        'since': time.strftime('%Y-%m-%d %H:%M:%S'),
        'command': shlex.join(sys.argv),
    }


def _identity() -> Record:
    """What tells this host from others, and this boot of it from earlier ones."""
    return {
        'host': socket.gethostname(),
        'boot': _text('/proc/sys/kernel/random/boot_id') or socket.gethostname(),
        'processes': _link('/proc/self/ns/pid'),
        'job': os.environ.get('SLURM_JOB_ID'),
        'restart': os.environ.get('SLURM_RESTART_COUNT'),
    }


def _same(there: Record, here: Record, name: str) -> bool:
    return here[name] is not None and there.get(name) == here[name]


def _lives(pid: Any, started: Any) -> bool:
    """Whether the process still runs. If its id was given to another process, the start time differs."""
    if type(pid) is not int or pid < 1:
        return False
    with contextlib.suppress(PermissionError):  # the process of another user
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
    now = _started(pid)
    return now is None or started is None or now == started


def _started(pid: int) -> int | None:
    """The start time of a process in clock ticks since the boot; None where there is no /proc. 0: it has ended."""
    fields = _text(f'/proc/{pid}/stat').rpartition(')')[2].split()  # after the name, which can hold spaces
    if len(fields) < 20:
        return None
    return 0 if fields[0] in ('Z', 'X') else int(fields[19])


def _text(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ''


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ''


def _restarts_left() -> bool:
    return os.environ.get('TORCHELASTIC_MAX_RESTARTS', '0') not in ('', '0')
