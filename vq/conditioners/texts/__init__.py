"""Frozen networks that read texts: one family a file."""

from vq.core.lazy import parts

__getattr__, __dir__ = parts(__name__)
