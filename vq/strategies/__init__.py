"""Where and how a task runs: one device, DDP, XLA. Models and runners never ask which."""

from vq.core.lazy import parts

__getattr__, __dir__ = parts(__name__)
