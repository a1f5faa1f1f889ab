"""A child that ends with its parent.

Linux sends a process SIGTERM when its parent dies if the process has asked for that, and ``execv`` keeps the request. So the
child is a Python that imports no packages, asks, and becomes the wanted one; this detour costs milliseconds. Elsewhere
children outlive a parent that was killed.
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
os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""


def command(*arguments: str) -> list[str]:
    """What starts ``python ARGUMENTS`` as such a child of this process."""
    return [sys.executable, '-ISc', BECOME, str(os.getpid()), *arguments]
