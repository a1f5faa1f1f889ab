"""The models that runners train and evaluate: each turns a batch into named losses and validation outputs."""

from vq.core.lazy import parts

__getattr__, __dir__ = parts(__name__)
