"""Networks that tell real images from reconstructed ones."""

from vq.core.lazy import parts

__getattr__, __dir__ = parts(__name__)
