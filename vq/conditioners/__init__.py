"""From the condition of an image to what a network takes: one kind a file."""

from vq.core.lazy import parts

__getattr__, __dir__ = parts(__name__)
