"""Masked autoregressive generation of continuous tokens (MAR), on the latents of a frozen tokenizer or on a cache of these.

image -> frozen tokenizer -> tokens;    class, visible tokens -> MAR -> z of each hidden one -> loss of a head
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from vq.core.recipe import Config, Given, Part, merge, recipe
from vq.recipes.classification import IMAGES, LOADING, digits_features
from vq.recipes.data import data, tiny_data
from vq.recipes.frozen import frozen_tokenizer
from vq.recipes.generators import INCEPTION
from vq.recipes.parts import TINY_SCHEDULE, of_types, other_logs, scaled_rate, watching
from vq.recipes.strategy import chosen, strategy

# dim, depth of each side, heads: B, L and H as published, 2XS of a fork
SIZES = {'2XS': (384, 3, 6), 'B': (768, 12, 12), 'L': (1024, 16, 16), 'H': (1280, 20, 16)}
TINY = dict(dim=32, depth=1, heads=2, buffer=4)
EPOCH = 626  # steps of 2,048 images in ImageNet's 1,281,167
WARM = dict(type='CosineSchedule', final=1.0, warmup=100 * EPOCH)


@recipe()
def diffusion_head(
    given: Given,
    *,
    head: Annotated[Part | None, 'the whole head, in place of the options that describe it'] = None,
    tiny_head: Annotated[Part | None, 'overrides of that head in the tiny form'] = None,
    head_width: Annotated[int, 'channels of the head'] = 1024,
    head_depth: Annotated[int, 'blocks of the head'] = 3,
    prediction: Annotated[str, 'what the head estimates: epsilon, or v, whose errors do not grow in noise'] = 'epsilon',
    repeats: Annotated[int, 'times at which the head learns each token of a step'] = 4,
) -> tuple[Part, Part]:
    """The head of MAR, and what changes in its tiny form."""
    if head is not None:
        return head, tiny_head or {}
    denoiser = dict(type='MLPDenoiser', width=head_width, depth=head_depth, kind=prediction, learned_variance=True)
    part = dict(type='DiffusionHead', denoiser=denoiser, path=dict(type='BetaPath', schedule='cosine'), repeats=repeats)
    return part, tiny_head or dict(denoiser=dict(width=32, depth=1), repeats=2)


@recipe(diffusion_head)
def mar_part(
    given: Given,
    *,
    size: Annotated[Literal['2XS', 'B', 'L', 'H'], 'preset of dim, depth and heads, each unless given'] = 'B',
    dim: Annotated[int | None, 'channels; None: from size'] = None,
    depth: Annotated[int | None, 'blocks of the encoder, and of the decoder; None: from size'] = None,
    heads: Annotated[int | None, 'attention heads; None: from size'] = None,
    patch: Annotated[int, 'cells a side that are one token'] = 1,
    buffer: Annotated[int, 'places for the condition before the tokens'] = 64,
    dropout: Annotated[float, 'dropout probability in attention and layers'] = 0.1,
    mask_min: Annotated[float, 'smallest share of hidden tokens in training'] = 0.7,
) -> tuple[Part, Part]:
    """The generator, and what changes in its tiny form."""
    shape = {**dict(zip(('dim', 'depth', 'heads'), SIZES[size], strict=True)), **chosen(dim=dim, depth=depth, heads=heads)}
    head, tiny = diffusion_head(given)
    part = dict(type='MAR', patch=patch, buffer=buffer, dropout=dropout, mask_min=mask_min, head=head, **shape)
    return part, TINY | dict(patch=1, head=tiny)


@recipe(frozen_tokenizer, mar_part, data, strategy, other_logs)
def mar(
    given: Given,
    *,
    generator: Annotated[Part | None, 'the whole generator, in place of the options that describe it'] = None,
    tiny_generator: Annotated[Part | None, 'overrides of that generator in the tiny form'] = None,
    latents: Annotated[str | None, 'output folder of vq data latents, to train on in place of images'] = None,
    mirror: Annotated[bool, 'latents: half of the samples are of mirror images'] = True,
    sample_posterior: Annotated[bool, 'draw latents from the Gaussian of a continuous tokenizer; False: its mean'] = True,
    num_classes: Annotated[int, 'number of classes; 0: unconditional'] = 1000,
    label_drop: Annotated[float, 'share of labels dropped in training; guidance needs it'] = 0.1,
    num_iter: Annotated[int, 'iterations of drawing, each of which fixes some tokens'] = 64,
    sampler: Annotated[Part | None, 'sampler of the diffusion of the head; None: as published, 100 ancestral steps'] = None,
    guidance: Annotated[float, 'scale of guidance, reached on a line over the iterations; 1: none'] = 1.0,
    temperature: Annotated[float, 'factor of the noise of the head'] = 1.0,
    draws: Annotated[tuple[str, ...], 'kinds of images that validation draws'] = ('generated', 'half_generated'),
    iters: Annotated[int, 'optimizer steps'] = 400 * EPOCH,
    lr: Annotated[float, 'learning rate of AdamW'] = 8e-4,
    blr: Annotated[float | None, 'in place of lr: the rate is blr times the images of a step / 256'] = None,
    betas: Annotated[tuple[float, float], 'betas of AdamW'] = (0.9, 0.95),
    weight_decay: Annotated[float, 'weight decay of AdamW, for matrices only'] = 0.02,
    clip: Annotated[float | None, 'largest norm of the gradients; None: not clipped'] = 3.0,
    schedule: Annotated[Part, 'learning rate schedule'] = WARM,
    ema: Annotated[float | None, 'decay of the moving average (EMA) of weights; None: no EMA'] = 0.9999,
    evaluate: Annotated[int | None, 'steps between evaluations during training; None: no evaluation'] = 40 * EPOCH,
    validate: Annotated[int | None, 'steps between validations by the losses alone; None: none'] = None,
    evaluate_limit: Annotated[int | None, 'images in such an evaluation; None: all'] = 10_000,
    pictures_every: Annotated[int | tuple[int, ...], 'steps between pictures of generated images, or the steps'] = 5000,
    pictures_of: Annotated[int | tuple[int, ...], 'classes in these pictures: the first so many, or their numbers'] = 10,
    save_every: Annotated[int, 'steps between checkpoints'] = 10_000,
    features: Annotated[Part | None, 'feature network of FID and related figures; None: no such figures'] = INCEPTION,
    figures: Annotated[tuple[str, ...], 'figures computed on generated images'] = ('fid', 'inception_score'),
    reference: Annotated[str | None, 'name of cached statistics for FID; None: the images themselves'] = None,
) -> Config:
    """Train a generator of continuous tokens, and draw with it (Li et al. 2024)."""
    usual = dict(batch_size=2048, val_batch_size=64, batch_size_in_total=True, num_workers=8)
    images = data(given, dataset='imagenet', image_size=256, augmentation='auto_weak', **usual)
    frozen = frozen_tokenizer(given, it_config='configs/two_stage/klvae_f16_imagenet_ddp.py')
    if latents is not None:
        cache = dict(type='VQDatasetRegistry.LatentDataset', folder=f'{latents}/train')
        images['trainer']['dataset'] = dict(cache, sample=sample_posterior, random_variant=mirror)
    whole, small = (generator, tiny_generator or {}) if generator is not None else mar_part(given)
    model: Part = dict(
        type='LatentModeling',
        tokenizer=frozen.part,
        generator=whole,
        conditioner=dict(type='ClassConditioner', classes=num_classes, drop=label_drop) if num_classes else None,
        sample_posterior=sample_posterior and latents is None,
        sampler=sampler or dict(type='Ancestral', steps=100, spacing='respaced'),
        guidance=dict(type='LinearGuidance', scale=float(guidance)),
        temperature=temperature,
        num_iter=num_iter,
        draws=draws,
    )
    adam = dict(type='AdamW', **scaled_rate(given, lr, blr), betas=betas, weight_decay=weight_decay, decay='matrices')
    optimizers = dict(generator=dict(adam, clip=clip, schedule=schedule))
    metrics: dict[str, Part] = {}
    if features is not None:
        measured = dict(type='FeatureMetric', network=features, reference=reference)
        metrics['generated'] = dict(measured, figures=figures, images='generated', prefix='generate_')
    looks: dict[str, Any] = dict(log=50, generations=dict(interval=pictures_every, classes=pictures_of), ema=ema)
    looks |= dict(evaluate=evaluate and dict(interval=evaluate, limit=evaluate_limit), validate=validate)
    saved = dict(interval=save_every, keep_last=3, keep_every=10 * save_every)
    callbacks, tiny_callbacks = watching(dict(evaluate=dict(limit=8)), **looks, checkpoint=saved)
    callbacks |= other_logs(given)
    little: Part = dict(generator=small, tokenizer=frozen.tiny, num_iter=2)
    if 'steps' in model['sampler']:
        little['sampler'] = dict(steps=2)
    tiny = dict(model=little, optimizers=dict(generator=dict(schedule=TINY_SCHEDULE)), callbacks=tiny_callbacks)
    return merge(
        images,
        strategy(given, precision='bf16'),
        frozen.imports,
        dict(
            trainer=dict(type='Trainer', iters=iters, model=model, optimizers=optimizers, callbacks=callbacks),
            validator=dict(type='Validator', metrics=metrics, callbacks=of_types(token_report='TokenReportCallback')),
            tiny=merge(tiny_data(given), dict(trainer=tiny, validator=dict(metrics=dict(generated=None)))),
        ),
    )


@recipe(mar, digits_features)
def digits_mar(
    given: Given,
    *,
    features_run: Annotated[str | None, 'a run of ic/digits.py: figures on its features; None: no such figures'] = None,
) -> Config:
    """A small MAR of handwritten digits, on the latents of a KL autoencoder of digits."""
    tokens = dict(it_config='configs/digits/kl.py', sample_posterior=False)
    network = dict(
        dim=128, depth=3, heads=4, buffer=4, dropout=0.0, head_width=192, head_depth=3, mask_min=0.5, prediction='v'
    )
    schedule = dict(type='CosineSchedule', warmup=50, final=0.02)
    training = dict(iters=1500, lr=2e-3, clip=1.0, ema=0.99, precision='fp32', schedule=schedule)
    drawn = dict(num_iter=8, sampler=dict(type='Ancestral', steps=25, spacing='respaced'), guidance=3.0)
    features = None if features_run is None else digits_features(given, features_run=features_run)
    measured = dict(features=features, figures=('fid', 'precision_recall'))
    watched = dict(save_every=500, pictures_every=500, evaluate=None)
    return mar(given, **IMAGES, **LOADING, **tokens, **network, **training, **drawn, **measured, **watched)
