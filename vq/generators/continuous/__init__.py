"""Generators of continuous tokens."""

from vq.core.lazy import parts

__getattr__, __dir__ = parts(__name__)
