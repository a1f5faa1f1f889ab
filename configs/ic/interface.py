"""The linear probe, for configs that load this file: see vq/recipes/classification.py."""

from vq.recipes import linear_probe

_export_ = linear_probe(_kwargs_)
