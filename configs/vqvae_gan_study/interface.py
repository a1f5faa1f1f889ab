"""The VQ-VAE/GAN study, for configs that load this file: see vq/recipes/study.py."""

from vq.recipes import vqvae_gan_study

_export_ = vqvae_gan_study(_kwargs_)
