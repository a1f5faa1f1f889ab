"""Drawing: samplers of tokens and of diffusion, guidance, paths, orders of masked decoding, random numbers."""

from vq.core.lazy import parts

__getattr__, __dir__ = parts(__name__)
