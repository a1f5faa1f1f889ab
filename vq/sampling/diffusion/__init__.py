"""Samplers of diffusion models: one function a file."""

from vq.core.lazy import parts

__getattr__, __dir__ = parts(__name__)
