"""Functions that draw tokens: samplers, guidance, orders of masked decoding, random numbers."""

from vq.core.lazy import parts

__getattr__, __dir__ = parts(__name__)
