"""Data for a trainer and a validator: a dataset and how to load it. See vq/recipes/parts.py."""

from vq.recipes import data

_export_ = data(_kwargs_)
