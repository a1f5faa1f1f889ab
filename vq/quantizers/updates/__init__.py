"""Update rules that move a codebook outside of gradient descent: one file each."""

from vq.core.lazy import parts

__getattr__, __dir__ = parts(__name__)
