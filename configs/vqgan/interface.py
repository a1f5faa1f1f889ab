"""VQGAN, for configs that load this file: see vq/recipes/vqgan.py."""

from vq.recipes import vqgan

_export_ = vqgan(_kwargs_)
