"""The one import of todd. Importing it must not change the process: todd replaces the root log handlers and the
``breakpoint`` hook, and both are put back here.
"""

from __future__ import annotations

import logging
import sys

_root = logging.getLogger()
_handlers, _level, _hook = list(_root.handlers), _root.level, sys.breakpointhook

import todd  # noqa: E402
from todd.configs import PyConfig as ToddConfig  # noqa: E402
from todd.registries import RegistryMeta  # noqa: E402

_root.handlers[:] = _handlers
_root.setLevel(_level)
sys.breakpointhook = _hook

Config = todd.Config
ToddRegistry = todd.Registry
Store = todd.Store

__all__ = ['Config', 'RegistryMeta', 'Store', 'ToddConfig', 'ToddRegistry']
