"""CVQ-VAE, for configs that load this file: see vq/recipes/vqgan.py."""

from vq.recipes import cvqvae

_export_ = cvqvae(_kwargs_)
