"""What disturbs latents between encoder and decoder, in training only."""

from vq.core.lazy import parts

__getattr__, __dir__ = parts(__name__)
