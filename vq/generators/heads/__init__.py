"""Heads: what makes a continuous token of the vector that a generator has for it."""

from vq.core.lazy import parts

__getattr__, __dir__ = parts(__name__)
