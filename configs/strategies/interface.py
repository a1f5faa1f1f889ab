"""The strategy of a run: see vq/recipes/parts.py."""

from vq.recipes import strategy

_export_ = strategy(_kwargs_)
