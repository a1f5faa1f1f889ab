"""The strategy of a run: see vq/recipes/strategy.py."""

from vq.recipes import strategy

_export_ = strategy(_kwargs_)
