"""Metrics of a validation pass."""

from vq.core.lazy import parts

__getattr__, __dir__ = parts(__name__)
