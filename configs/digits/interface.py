"""Tokenizers of handwritten digits, for configs that load this file: see vq/recipes/digits.py."""

from vq.recipes import digits_tokenizer

_export_ = digits_tokenizer(_kwargs_)
