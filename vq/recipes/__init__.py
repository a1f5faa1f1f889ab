"""Recipes: typed functions that compose configs, one file per family. A config file is a header and one call of a recipe.

torch is not imported here, so listing options and composing configs is fast.
"""

from __future__ import annotations

from vq.core.recipe import Given, Part, alias, config_of, merge, recipe
from vq.recipes.aligned import aligned_vqgan, alignment, vqgan_of_features
from vq.recipes.classification import digits_classifier, digits_features, digits_probe, linear_probe, teacher_probe
from vq.recipes.cluster import cluster, digits_cluster
from vq.recipes.coco import coco, coco_stuff
from vq.recipes.combined import few_images, hq_faces, mixture
from vq.recipes.data import data, datasets
from vq.recipes.decoder import pixel_decoder
from vq.recipes.diffusion import diffusion, digits_diffusion
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
from vq.recipes.energy import digits_energy, digits_equilibrium, energy_diffusion
from vq.recipes.frozen import frozen_tokenizer
from vq.recipes.generators import class_to_image, digits_generator, token_generator
from vq.recipes.images import clip, dataset_statistics, dinov2, image_figures, image_pairs, one_dataset, photo_runner_alone
from vq.recipes.kl import kl
from vq.recipes.latents import latent_cache
from vq.recipes.layout import layout_diffusion
from vq.recipes.mar import digits_mar, mar
from vq.recipes.parts import cooling
from vq.recipes.photos import photos_gan, photos_generator, photos_tokenizer
from vq.recipes.representation import digits_rae, mae_autoencoder, rae
from vq.recipes.second_stage import dit, dit_dh, pixel_diffusion
from vq.recipes.segmentation import digits_segmenter
from vq.recipes.strategy import strategy
from vq.recipes.study import vqvae_gan_study
from vq.recipes.unet import ddpm, digits_canvas, digits_layout, improved_ddpm
from vq.recipes.vqgan import autoencoder, cvqvae, fsq, llamagen_tokenizer, scalar_quantization, vqgan
from vq.recipes.vqkd import digits_vqkd, vqkd
