"""Why an attempt ended. A rank writes its error message to a file; its launcher prints the message again, as the last one."""

import contextlib
import dataclasses
import json
import signal
from collections.abc import Mapping
from pathlib import Path

from vq.core.errors import UserError

VARIABLE = 'VQ_FIRST_ERROR'  # path of the file, in the environment of the ranks
GO_ON = 'Go on with the same command and --auto-resume.'
MEMORY = 'The usual cause is that memory ran out (see dmesg). Go on with the same command and --auto-resume.'
NATIVE = 'It crashed in native code: its output is above.'


@dataclasses.dataclass(eq=False)
class Failure(UserError):
    message: str
    hint: str
    exit_code: int = 1
    stopped: bool = False  # the run was asked to stop
    killed: bool = False  # a rank was killed, so this failure does not follow from one on another node
    rank: str | None = None  # the rank that left the message


def read(path: Path) -> Failure | None:
    with contextlib.suppress(OSError, ValueError):  # no message, or an incomplete one
        return Failure(**json.loads(path.read_text()))
    return None


def first(codes: Mapping[int, int], said: Failure | None) -> Failure:
    """The cause, from the exit codes of failed ranks. A killed rank takes precedence over ranks that noticed its death."""
    killed = min((rank for rank, code in codes.items() if code < 0), default=None)
    if killed is not None and (said is None or not (said.stopped or said.rank == str(killed))):
        number, names = -codes[killed], {int(known): known.name for known in signal.Signals}
        hint = {int(signal.SIGKILL): MEMORY, int(signal.SIGTERM): GO_ON, int(signal.SIGINT): GO_ON}.get(number, NATIVE)
        return Failure(f'rank {killed} was killed by {names.get(number, number)}', hint, killed=True)
    rank, code = min(codes.items())
    return said or Failure(f'rank {rank} ended with exit code {code}', 'Its output is above.', 2 if code == 2 else 1)
