"""A convolutional VQ autoencoder for photographs, for configs that load this file: see vq/recipes/vqgan.py."""

from vq.recipes import autoencoder

_export_ = autoencoder(_kwargs_, dataset='digits')
