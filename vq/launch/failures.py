"""Why an attempt ended. A rank leaves its message in a file, so that its launcher can repeat the message as the last one."""

import contextlib
import dataclasses
import json
import signal
from collections.abc import Mapping
from pathlib import Path

from vq.core.errors import UserError

VARIABLE = 'VQ_FIRST_ERROR'  # path of the file, in the environment of the ranks
GO_ON = 'Go on with the same command and --auto-resume.'
MEMORY = 'Memory that ran out is the usual cause (see dmesg); go on with the same command and --auto-resume.'
NATIVE = 'It crashed in native code: what it said stands above.'


@dataclasses.dataclass(eq=False)
class Failure(UserError):
    message: str
    hint: str
    exit_code: int = 1
    stopped: bool = False  # the run was asked to stop
    killed: bool = False  # a rank was: then this is not the echo of a failure on another node
    rank: str | None = None  # that left the message


def read(path: Path) -> Failure | None:
    with contextlib.suppress(OSError, ValueError):  # no message, or one that is not yet written whole
        return Failure(**json.loads(path.read_text()))
    return None


def first(codes: Mapping[int, int], said: Failure | None) -> Failure:
    """The cause, from the exit codes of the ranks that failed. A killed rank goes before those that noticed its death."""
    killed = min((rank for rank, code in codes.items() if code < 0), default=None)
    if killed is not None and (said is None or not (said.stopped or said.rank == str(killed))):
        number, names = -codes[killed], {int(known): known.name for known in signal.Signals}
        hint = {int(signal.SIGKILL): MEMORY, int(signal.SIGTERM): GO_ON, int(signal.SIGINT): GO_ON}.get(number, NATIVE)
        return Failure(f'rank {killed} was killed by {names.get(number, number)}', hint, killed=True)
    rank, code = min(codes.items())
    return said or Failure(f'rank {rank} ended with exit code {code}', 'What it said stands above.', 2 if code == 2 else 1)
