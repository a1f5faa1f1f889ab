"""One callback per file. A runner calls the hooks of ``vq.interfaces.Callback`` in the order of its callbacks."""

from vq.core.lazy import parts

__getattr__, __dir__ = parts(__name__)
