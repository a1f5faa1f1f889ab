"""KL autoencoders of photographs: continuous tokenizers for diffusion models."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from vq.core.recipe import Config, Given, merge, recipe
from vq.core.specs import size_of
from vq.recipes.data import image_size_in
from vq.recipes.vqgan import vqgan

RATE = 4.32e-4  # 4.5e-6 for each of 96 images
OF_CODES = ('codebook', 'window')


@recipe(vqgan, hides=('quantizer', 'codebook_size', 'embedding_dim'))
def kl(
    given: Given,
    *,
    latent_channels: Annotated[int, 'latent channels per cell'] = 16,
    kl_weight: Annotated[float, 'weight of the KL divergence, it and the pixel losses summed over an image'] = 1e-6,
    attention: Annotated[
        Literal['none', 'encoder', 'both'], 'sides with attention after each residual block of the last level'
    ] = 'none',
) -> Config:
    """Latent diffusion's KL autoencoder (Rombach et al. 2022): VQGAN with a Gaussian in each cell in place of a code.

        image x -> encoder -> mu, l;   z = mu + exp(l / 2) e;   z -> decoder -> x'
        tokenizer:      |x - x'| + LPIPS(x, x') + w KL(N(mu, exp(l)) | N(0, 1)) - weight * E D(x')
        discriminator:  (E max(0, 1 - D(x)) + E max(0, 1 + D(x'))) / 2,  from step 50,000 on

    The published weight of the KL divergence, 1e-6, stands beside pixel losses that are summed over the image. Here pixel
    losses are means, and the divergence is a sum over channels and cells: w is kl_weight / (3 H W), which gives the same
    gradients but for a factor that Adam ignores. The published loss has the variance of the decoder as a parameter that no
    optimizer has: it stays 1, and is left out here. Learning rate: 4.5e-6 for each image of a step.
    """
    adversarial = dict(discriminator_start=50_000, lr=RATE, discriminator_lr=RATE)
    config = vqgan(given, generator_weight=dict(type='AdaptiveWeight', gain=0.5), **adversarial)
    tokenizer, small = config['trainer']['model']['tokenizer'], config['tiny']['trainer']['model']['tokenizer']
    del tokenizer['quantizer'], small['quantizer']
    pixels = math.prod(size_of(image_size_in(config)))
    last = (len(tokenizer['encoder']['multipliers']) - 1,)
    encoder, decoder = (last if attention in sides else () for sides in (('encoder', 'both'), ('both',)))
    gaussian = dict(type='KLAutoencoder', kl_weight=kl_weight / (3 * pixels))
    gaussian['encoder'] = dict(out_channels=2 * latent_channels, attention_levels=encoder)
    gaussian['decoder'] = dict(in_channels=latent_channels, attention_levels=decoder)
    no_codes = dict(trainer=dict(callbacks=dict(alarm=None)), validator=dict(metrics=dict.fromkeys(OF_CODES)))
    tiny = dict(encoder=dict(out_channels=2 * latent_channels))
    whole = dict(trainer=dict(model=dict(tokenizer=gaussian)))
    return merge(config, whole, no_codes, dict(tiny=merge(dict(trainer=dict(model=dict(tokenizer=tiny))), no_codes)))
