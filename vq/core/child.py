"""A child that ends with its parent.

On Linux a process can request SIGTERM for the death of its parent (PR_SET_PDEATHSIG), and ``execv`` keeps the request. So
the child starts as a Python that imports no packages, makes the request and executes the real command; this detour costs
milliseconds. On other systems children outlive a killed parent.
"""

from __future__ import annotations

import os
import sys

BECOME = """
import ctypes, os, signal, sys
if sys.platform == 'linux':
    PR_SET_PDEATHSIG = 1
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM))
    if os.getppid() != int(sys.argv[1]):  # the parent died before that call
        sys.exit(1)
os.execv(sys.argv[2], sys.argv[2:])
"""


def command(*arguments: str) -> list[str]:
    """The command line that runs ``python ARGUMENTS`` as a child that ends with this process."""
    return [sys.executable, '-ISc', BECOME, str(os.getpid()), sys.executable, *arguments]
