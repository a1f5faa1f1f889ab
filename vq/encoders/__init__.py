"""Networks from images to features."""

from vq.core.lazy import parts

__getattr__, __dir__ = parts(__name__)
