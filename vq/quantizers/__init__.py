"""Quantizers, from features to tokens: one file each, with the code search and the codebook updates."""

from vq.core.lazy import parts

__getattr__, __dir__ = parts(__name__)
