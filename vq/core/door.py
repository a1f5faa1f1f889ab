"""The only import of todd, without its side effects. Todd closes and replaces the root log handlers, and replaces
``breakpoint`` if ipdb is installed; this module restores both. Todd also asserts that DRY_RUN is a Python bool, so
``DRY_RUN=1`` would end in an AssertionError: the variable is hidden during the import.
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
_root.handlers.clear()  # hidden from todd: a file handler that it closed would drop every later record

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
