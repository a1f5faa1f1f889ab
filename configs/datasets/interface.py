"""Dataset and data loader of a trainer and a validator: see vq/recipes/data.py."""

from vq.recipes import data

_export_ = data(_kwargs_)
