"""Data of second stages that are trained on a latent cache in place of images."""

from __future__ import annotations

from typing import Annotated

from vq.core.recipe import Config, Given, recipe


@recipe()
def latent_cache(
    given: Given,
    *,
    folder: Annotated[str, 'the output of vq data latents: a folder with train/ and validation/'] = 'work_dirs/latents/kl',
    sample: Annotated[bool, 'draw from the Gaussian of each latent; False: its mean'] = False,
    mirror: Annotated[bool, 'half of the training samples are latents of mirror images, if the cache has them'] = True,
    normalized: Annotated[bool, 'zero mean and unit variance, by the statistics in the tokenizer'] = True,
) -> Config:
    """Both splits of a latent cache. Validation takes the means of the images themselves."""
    cache = dict(type='VQDatasetRegistry.LatentDataset', normalized=normalized)
    train = dict(cache, folder=f'{folder}/train', sample=sample, random_variant=mirror)
    validation = dict(cache, folder=f'{folder}/validation', sample=False, random_variant=False)
    return dict(trainer=dict(dataset=train), validator=dict(dataset=validation))
