"""Generators: models that learn tokens and draw new ones."""

from vq.core.lazy import parts

__getattr__, __dir__ = parts(__name__)
