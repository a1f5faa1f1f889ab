"""Datasets, one file each. A new one is one file here that registers a class in ``VQDatasetRegistry``."""
