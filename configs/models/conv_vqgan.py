"""VQGAN's autoencoder as a tokenizer, for configs that load this file: see vq/recipes/parts.py."""

from vq.recipes.parts import conv_tokenizer

_export_ = conv_tokenizer(_kwargs_)
