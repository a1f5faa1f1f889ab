"""VQ-KD: tokenizers whose codes predict the features of a frozen network that understands images."""

from __future__ import annotations

from typing import Annotated, Any

from vq.core.errors import ConfigError
from vq.core.recipe import Config, Given, Part, merge, recipe
from vq.recipes.data import data, image_size_in, photo_data
from vq.recipes.parts import TINY_CODES, TINY_SCHEDULE, code_sizes, photo_runner, sized
from vq.recipes.perturbed import disturbed
from vq.recipes.strategy import strategy
from vq.recipes.teachers import teacher

OF_PIXELS = ('l1', 'l2', 'mse', 'psnr', 'ssim', 'ssim_uniform', 'lpips', 'features')
TINY_VIT = dict(dim=16, depth=1, heads=2)


@recipe(photo_runner, hides=('reference',))
def feature_runner(given: Given, model: Part, optimizer: Part, tiny: Config) -> Config:
    """Trainer and validator of tokenizers that make no pixels: metrics are the losses and those of the codebook."""
    without = dict(pictures=None)
    return merge(
        photo_runner(given, model, dict(tokenizer=optimizer), tiny),
        dict(trainer=dict(callbacks=without), validator=dict(metrics=dict.fromkeys(OF_PIXELS))),
        dict(tiny=dict(trainer=dict(callbacks=without), validator=dict(callbacks=dict(reconstructions=None)))),
    )


@recipe(teacher, feature_runner, code_sizes, disturbed, data, strategy)
def vqkd(
    given: Given,
    *,
    losses: Annotated[dict[str, Any], "losses of the teacher's features, by name"] = dict(cosine=dict(type='CosineLoss')),
    dim: Annotated[int, 'channels of the encoder and of the feature decoder'] = 768,
    depth: Annotated[int, 'blocks of the encoder'] = 12,
    heads: Annotated[int, 'attention heads of both'] = 12,
    decoder_depth: Annotated[int, 'blocks of the feature decoder'] = 1,
    patch: Annotated[int, 'pixels a side of a token'] = 16,
    commitment_weight: Annotated[float, 'weight of the mean squared distance of features to their codes'] = 1.0,
    decay: Annotated[float, 'decay of the running means that are the codes'] = 0.99,
    kmeans_batches: Annotated[int, 'batches of each rank for the k-means that codes start from; 0: random codes'] = 1,
    kmeans_delay: Annotated[int, 'steps before that k-means'] = 0,
    lr: Annotated[float, 'learning rate of AdamW'] = 2e-4,
    weight_decay: Annotated[float, 'weight decay of AdamW, for matrices only'] = 1e-4,
    warmup: Annotated[int, 'steps of the linear warm-up of the learning rate'] = 25_000,
) -> Config:
    """VQ-KD (Peng et al. 2022, BEiT v2): a ViT encoder, codes of unit length, and a shallow ViT onto a teacher's features.

        image x -> encoder -> nearest code z (cosine) -> feature decoder F -> 1 - cos(F(z), T(x)) + |x_enc - sg(z)|^2

    T is the frozen teacher. Codes are running means of the features assigned to them. They start from k-means of the first
    batches. Learning rate: linear warm-up from 1e-8 (at 2e-4), then half a cosine to a twentieth.
    """
    photos = photo_data(given, image_size=224, augmentation='default', batch_size=512, num_workers=10)
    size = image_size_in(photos)
    if not isinstance(size, int) or size % patch:
        raise ConfigError(f'image_size is {size}, and patch is {patch}', 'Give an image_size that is a multiple of patch.')
    chosen = teacher(given)
    update = dict(type='VQKDUpdate', decay=decay)
    quantizer = dict(type='VectorQuantizer', normalize=True, commitment_weight=commitment_weight, update=update)
    quantizer = sized(given, quantizer, codebook_size=8192, embedding_dim=32)
    vit = dict(dim=dim, heads=heads)
    tokenizer = dict(
        type='VQKD',
        encoder=dict(
            type='ViTEncoder', out_channels=quantizer['embedding_dim'], depth=depth, patch=patch, image_size=size, **vit
        ),
        quantizer=quantizer,
        feature_decoder=dict(
            type='ViTFeatureDecoder', out_channels=chosen.width, depth=decoder_depth, grid=size // patch, **vit
        ),
        **disturbed(given),
    )
    model = dict(
        type='FeatureTokenization', tokenizer=tokenizer, losses=losses, teacher=chosen.part, teacher_layers=chosen.layers
    )
    few = patch if 32 % patch == 0 else 16  # of the tiny form, whose images have 32 pixels
    small = dict(
        encoder=dict(TINY_VIT, out_channels=TINY_CODES['embedding_dim'], patch=few, image_size=32),
        quantizer=TINY_CODES,
        feature_decoder=dict(TINY_VIT, out_channels=chosen.tiny_width, grid=32 // few),
    )
    tiny: Config = dict(model=dict(tokenizer=small, teacher=chosen.tiny))
    tiny['optimizers'] = dict(tokenizer=dict(schedule=TINY_SCHEDULE))
    schedule = dict(type='CosineSchedule', warmup=warmup, final=0.05, start=5e-5)
    adam = dict(type='AdamW', lr=lr, betas=(0.9, 0.99), eps=1e-8, weight_decay=weight_decay, decay='matrices')
    start: Config = {}
    if kmeans_batches:
        kmeans = dict(type='KMeansInitCallback', batches=kmeans_batches, delay=kmeans_delay)
        start = dict(trainer=dict(callbacks=dict(kmeans=kmeans)))
        tiny['callbacks'] = dict(kmeans=dict(batches=4, iterations=2, delay=min(kmeans_delay, 1)))
    return merge(
        photos,
        strategy(given, precision='bf16'),
        feature_runner(given, model, dict(adam, schedule=schedule), tiny, iters=250_000),
        start,
    )


# small tokenizers of handwritten digits, on the features of the classifier of ic/digits.py
DIGITS: dict[str, Any] = dict(dataset='digits', image_size=32, augmentation=None, num_workers=0, batch_size_in_total=False)
DIGITS |= dict(batch_size=16, val_batch_size=60, teacher='digits', codebook_size=256, iters=700, evaluate=350)
OFTEN = dict(trainer=dict(callbacks=dict(alarm=dict(interval=200), checkpoint=dict(interval=350))))


@recipe(vqkd)
def digits_vqkd(given: Given) -> Config:
    """VQ-KD of handwritten digits, 4 x 4 = 16 tokens of 256 codes: the teacher is a classifier of digits."""
    vit = dict(patch=8, dim=96, depth=4, heads=4, embedding_dim=8)
    training: dict[str, Any] = dict(lr=1e-3, warmup=50, precision='fp32', kmeans_batches=64, kmeans_delay=100)
    return merge(vqkd(given, **DIGITS, **vit, **training), OFTEN)
