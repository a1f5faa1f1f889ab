"""Recipes: typed functions that compose configs, one file per family. A config file is a header and one call of a recipe.

torch is not imported here, so listing options and composing configs is fast.
"""

from __future__ import annotations

from vq.core.recipe import Given, Part, alias, config_of, merge, recipe
from vq.recipes.classification import digits_classifier, digits_features, digits_probe, linear_probe, teacher_probe
from vq.recipes.decoder import pixel_decoder
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
from vq.recipes.frozen import frozen_tokenizer
from vq.recipes.generators import class_to_image, digits_generator, token_generator
from vq.recipes.images import clip, dataset_statistics, dinov2, image_figures, image_pairs, one_dataset, photo_runner_alone
from vq.recipes.parts import cooling, data, datasets, strategy
from vq.recipes.photos import photos_gan, photos_generator, photos_tokenizer
from vq.recipes.study import vqvae_gan_study
from vq.recipes.vqgan import autoencoder, cvqvae, fsq, llamagen_tokenizer, scalar_quantization, vqgan
