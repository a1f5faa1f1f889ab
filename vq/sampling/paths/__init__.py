"""Paths from data to noise,  z_t = alpha(t) x0 + sigma(t) eps: one file each."""

from vq.core.lazy import parts

__getattr__, __dir__ = parts(__name__)
