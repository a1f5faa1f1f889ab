"""The runners of a task (trainer, validator, token writer, sampler), and the callbacks around their steps."""

from vq.core.lazy import parts

__getattr__, __dir__ = parts(__name__)
