"""Datasets, one file each. A new one is one file here that registers a class in ``VQDatasetRegistry``."""

from vq.core.lazy import parts

__getattr__, __dir__ = parts(__name__)
