"""What everything else stands on: config, registry, records, collectives, random streams.

The only package that imports todd. ``PyConfig`` is imported here because config files name it; the rest is imported
from its own module so that composing a config never pulls in torch.
"""

from vq.core.config import PyConfig
from vq.core.errors import ConfigError, RunFailure, UserError

__all__ = ['ConfigError', 'PyConfig', 'RunFailure', 'UserError']
