"""LlamaGen's image tokenizer, for configs that load this file: see vq/recipes/vqgan.py."""

from vq.recipes import llamagen_tokenizer

_export_ = llamagen_tokenizer(_kwargs_)
