"""Datasets of other projects: fetched or put there by hand, unpacked, checked, and turned into the layouts that are read."""
