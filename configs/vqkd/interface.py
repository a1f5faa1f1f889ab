"""VQ-KD, for configs that load this file: see vq/recipes/vqkd.py."""

from vq.recipes import vqkd

_export_ = vqkd(_kwargs_)
