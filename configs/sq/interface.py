"""Scalar quantization, for configs that load this file: see vq/recipes/vqgan.py."""

from vq.recipes import scalar_quantization

_export_ = scalar_quantization(_kwargs_)
