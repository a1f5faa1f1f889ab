"""FSQ, for configs that load this file: see vq/recipes/vqgan.py."""

from vq.recipes import fsq

_export_ = fsq(_kwargs_)
