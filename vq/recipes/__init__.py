"""Typed functions that compose configs, a file per family. A config file is a header and one call of one of them.

No torch is imported here: options can be listed and configs composed at once.
"""

from __future__ import annotations

from vq.core.recipe import Given, Part, alias, config_of, merge, recipe
from vq.recipes.digits import (
    EMA,
    digits_cvq,
    digits_gan,
    digits_grouped,
    digits_kl,
    digits_kmeans,
    digits_reinit,
    digits_residual,
    digits_tokenizer,
)
from vq.recipes.parts import cooling
from vq.recipes.study import vqvae_gan_study
from vq.recipes.vqgan import autoencoder, cvqvae, fsq, llamagen_tokenizer, scalar_quantization, vqgan

__all__ = [
    'EMA',
    'Given',
    'Part',
    'alias',
    'autoencoder',
    'config_of',
    'cooling',
    'cvqvae',
    'digits_cvq',
    'digits_gan',
    'digits_grouped',
    'digits_kl',
    'digits_kmeans',
    'digits_reinit',
    'digits_residual',
    'digits_tokenizer',
    'fsq',
    'llamagen_tokenizer',
    'merge',
    'recipe',
    'scalar_quantization',
    'vqgan',
    'vqvae_gan_study',
]
