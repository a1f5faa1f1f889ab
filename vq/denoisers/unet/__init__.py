"""The UNet of denoising diffusion and the blocks that it is made of: one kind a file."""

from vq.core.lazy import parts

__getattr__, __dir__ = parts(__name__)
