"""A child that ends with its parent: ``python -IS child.py PID ARGUMENTS`` becomes ``python ARGUMENTS``.

Linux sends a process SIGTERM when its parent dies if the process has asked for that, and ``execv`` keeps the request. The
detour costs milliseconds, for this file imports no package. Elsewhere children outlive a parent that was killed.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def command(*arguments: str) -> list[str]:
    """What starts ``python ARGUMENTS`` as such a child of this process."""
    return [sys.executable, '-IS', __file__, str(os.getpid()), *arguments]


if __name__ == '__main__':
    if sys.platform == 'linux':
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM))
        if os.getppid() != int(sys.argv[1]):  # the parent died before that call
            sys.exit(1)
    os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
