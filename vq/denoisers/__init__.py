"""Networks that estimate what noise was added to a latent: one kind a file."""

from vq.core.lazy import parts

__getattr__, __dir__ = parts(__name__)
