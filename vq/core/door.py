"""The one import of todd. Importing it must not change the process: todd replaces the root log handlers and the
``breakpoint`` hook, and both are put back here. It also asserts that DRY_RUN is a Python bool, so ``DRY_RUN=1`` would end
in an AssertionError: the variable is hidden from it.
"""

from __future__ import annotations

import logging
import os
import sys

_root = logging.getLogger()
_flag = os.environ.pop('DRY_RUN', None)
_handlers, _level, _hook = list(_root.handlers), _root.level, sys.breakpointhook

from todd.configs import Config  # noqa: E402
from todd.configs import PyConfig as ToddConfig  # noqa: E402
from todd.registries import Registry as ToddRegistry  # noqa: E402
from todd.registries import RegistryMeta  # noqa: E402

_root.handlers[:] = _handlers
_root.setLevel(_level)
sys.breakpointhook = _hook
if _flag is not None:
    os.environ['DRY_RUN'] = _flag

__all__ = ['Config', 'RegistryMeta', 'ToddConfig', 'ToddRegistry']
