"""Frozen pretrained image networks, whose features encoders, losses and metrics use."""

from vq.core.lazy import parts

__getattr__, __dir__ = parts(__name__)
