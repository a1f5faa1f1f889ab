"""Trainer and validator of tokenizers of photographs, for configs that load this file: see vq/recipes/parts.py."""

from vq.recipes import photo_runner_alone

_export_ = photo_runner_alone(_kwargs_)
