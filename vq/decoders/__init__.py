"""Networks from code vectors to images."""

from vq.core.lazy import parts

__getattr__, __dir__ = parts(__name__)
