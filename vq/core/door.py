"""The one import of todd. Importing it must not change the process: todd closes and replaces the root log handlers, and
replaces ``breakpoint`` where ipdb is installed; all of it is put back here. It also asserts that DRY_RUN is a Python bool,
so ``DRY_RUN=1`` would end in an AssertionError: the variable is hidden from it.
"""

from __future__ import annotations

import builtins
import logging
import os
import sys

_root = logging.getLogger()
_flag = os.environ.pop('DRY_RUN', None)
_handlers, _level = list(_root.handlers), _root.level
_hook, _breakpoint = sys.breakpointhook, builtins.breakpoint
_root.handlers.clear()  # out of todd's reach: a file handler that was closed would drop every later record

try:
    from todd.configs import Config
    from todd.configs import PyConfig as ToddConfig
    from todd.registries import Registry as ToddRegistry
    from todd.registries import RegistryMeta
finally:
    _root.handlers[:] = _handlers
    _root.setLevel(_level)
    sys.breakpointhook, builtins.breakpoint = _hook, _breakpoint
    if _flag is not None:
        os.environ['DRY_RUN'] = _flag

__all__ = ['Config', 'RegistryMeta', 'ToddConfig', 'ToddRegistry']
