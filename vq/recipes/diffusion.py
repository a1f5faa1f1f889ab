"""Diffusion on pixels, on the latents of a frozen tokenizer, or on a cache of these.

image -> frozen tokenizer -> x0;    z_t = alpha x0 + sigma eps;    z_t, t, class -> denoiser -> squared error
"""

from __future__ import annotations

from typing import Annotated, Any

from vq.core.errors import ConfigError, UserError
from vq.core.recipe import Config, Given, Part, config_of, merge, recipe
from vq.recipes.aligned import alignment
from vq.recipes.classification import IMAGES, LOADING, digits_features
from vq.recipes.data import data, image_size_in, tiny_data
from vq.recipes.denoisers import TINY, denoiser_part, drawing_part, objective, path_part, small, times_part
from vq.recipes.frozen import Frozen, frozen_tokenizer
from vq.recipes.parts import TINY_SCHEDULE, other_logs, scaled_rate, watching
from vq.recipes.strategy import chosen, strategy
from vq.recipes.teachers import teacher

INCEPTION = dict(type='FIDInception')
CONSTANT = dict(type='CosineSchedule', final=1.0)


@recipe(alignment, teacher, hides=('place', 'channels'))
def repa(
    given: Given,
    dim: int,
    *,
    align_block: Annotated[int | None, 'block whose output is aligned with a teacher (REPA); None: no alignment'] = None,
) -> tuple[Part, Part]:
    """-weight E cos(P h, f(x))  of a block's features h and a teacher f; and what changes in the tiny form."""
    if align_block is None:
        return {}, {}
    settings: dict[str, Any] = dict(teacher='dinov2_b', distance=dict(type='CosineLoss'))
    loss = alignment(given, place=f'denoiser.blocks.{align_block}', channels=dim, **settings)
    tiny = dict(teacher=teacher(given, teacher='dinov2_b').tiny, channels=TINY['dim'], width=16, place='denoiser.blocks.0')
    return dict(alignment=loss), dict(alignment=tiny)


@recipe()
def guide_part(
    given: Given,
    *,
    guide: Annotated[str | None, 'run of a weaker denoiser, for autoguidance; None: guidance by no condition'] = None,
    guide_config: Annotated[str | None, 'config that trained it; None: that of the run', config_of('guide')] = None,
) -> Part | None:
    """The weaker model of autoguidance (Karras et al. 2024)."""
    if guide_config is not None:
        model = given.load(guide_config, 'guide', ('guide', 'guide_config', 'denoiser')).trainer.model
    elif guide is not None:
        model = _model_of(guide)
    else:
        return None
    return dict(type='FrozenDenoiser', denoiser=model['denoiser'], conditioner=model['conditioner'], weights=guide)


def _model_of(name: str) -> Part:
    from vq.io import runs

    try:
        model = runs.find(name).model
    except ConfigError:
        raise
    except UserError as error:  # any exception but ConfigError would be reported as a mistake in the config file
        raise ConfigError(f'guide: {error.message}', error.hint) from error
    if 'denoiser' not in model:
        raise ConfigError(f"guide: '{name}' has no denoiser", 'Give the run of a diffusion config.')
    return dict(model)


@recipe(
    frozen_tokenizer,
    denoiser_part,
    path_part,
    times_part,
    objective,
    drawing_part,
    repa,
    guide_part,
    data,
    strategy,
    other_logs,
)
def diffusion(
    given: Given,
    *,
    pixels: Annotated[bool, 'learn the images themselves: no tokenizer'] = False,
    latents: Annotated[str | None, 'output folder of vq data latents, to train on in place of images'] = None,
    mirror: Annotated[bool, 'latents: half of the samples are of mirror images'] = True,
    connector: Annotated[Part | None, 'map with an inverse from the latents to what is learned; None: none'] = None,
    sample_posterior: Annotated[bool, 'draw x0 from the Gaussian of a continuous tokenizer; False: its mean'] = False,
    num_classes: Annotated[int, 'number of classes; 0: unconditional'] = 1000,
    conditioner: Annotated[Part | None, 'what reads the condition, such as texts or layouts; None: classes'] = None,
    label_drop: Annotated[float, 'share of labels dropped in training; guidance needs it'] = 0.1,
    label_std: Annotated[float | None, 'deviation of initial class vectors; None: 0.02'] = None,
    draws: Annotated[tuple[str, ...], "pictures that validation draws: ('generated',), or none"] = ('generated',),
    bits_steps: Annotated[int | None, 'path beta: validation also bounds the likelihood, with so many steps; None: no'] = None,
    iters: Annotated[int, 'optimizer steps'] = 400_000,
    lr: Annotated[float, 'learning rate of AdamW'] = 1e-4,
    blr: Annotated[float | None, 'in place of lr: the rate is blr times the images of a step / 256'] = None,
    betas: Annotated[tuple[float, float], 'betas of AdamW'] = (0.9, 0.999),
    weight_decay: Annotated[float, 'weight decay of AdamW, for matrices only'] = 0.0,
    clip: Annotated[float | None, 'largest norm of the gradients; None: not clipped'] = 1.0,
    schedule: Annotated[Part, 'learning rate schedule'] = CONSTANT,
    ema: Annotated[float | None, 'decay of the moving average (EMA) of weights; None: no EMA'] = 0.9999,
    evaluate: Annotated[int | None, 'steps between evaluations during training; None: no evaluation'] = 50_000,
    validate: Annotated[int | None, 'steps between validations by the losses alone; None: none'] = None,
    evaluate_limit: Annotated[int | None, 'images in such an evaluation; None: all'] = 10_000,
    pictures_every: Annotated[int | tuple[int, ...], 'steps between pictures of generated images, or the steps'] = 5000,
    pictures_of: Annotated[int | tuple[int, ...], 'classes in these pictures: the first so many, or their numbers'] = 10,
    save_every: Annotated[int, 'steps between checkpoints'] = 10_000,
    features: Annotated[Part | None, 'feature network of FID and related figures; None: no such figures'] = INCEPTION,
    figures: Annotated[tuple[str, ...], 'figures computed on generated images'] = ('fid', 'inception_score'),
    reference: Annotated[str | None, 'name of cached statistics for FID; None: the images themselves'] = None,
) -> Config:
    """Train a denoiser, and draw with it."""
    usual = dict(batch_size=256, val_batch_size=64, batch_size_in_total=True, num_workers=4)
    images = data(given, dataset='imagenet', image_size=256, augmentation='auto_weak', **usual)
    frozen = Frozen({}, {}, {}, {}, []) if pixels else frozen_tokenizer(given)
    if latents is not None:
        cache = dict(type='VQDatasetRegistry.LatentDataset', folder=f'{latents}/train')
        images['trainer']['dataset'] = dict(cache, sample=sample_posterior, random_variant=mirror)
    classes, path = chosen(std=label_std), path_part(given)
    denoiser, little_denoiser = denoiser_part(given, path.get('steps'), pixels)
    aligned, tiny_aligned = repa(given, denoiser.get('dim', 0))
    guide = guide_part(given)
    of_classes = dict(type='ClassConditioner', classes=num_classes, drop=label_drop, **classes) if num_classes else None
    model: Part = dict(
        type='DiffusionTask',
        tokenizer=None if pixels else frozen.part,
        image_size=image_size_in(images) if pixels else None,
        denoiser=denoiser,
        conditioner=of_classes if conditioner is None else conditioner,
        path=path,
        losses=aligned,
        guide=guide,
        sample_posterior=sample_posterior and latents is None,
        draws=draws,
        bits_steps=bits_steps,
        **times_part(given, path.get('steps')),
        **objective(given),
        **drawing_part(given),
        **chosen(connector=connector),
    )
    adam = dict(type='AdamW', **scaled_rate(given, lr, blr), betas=betas, weight_decay=weight_decay, decay='matrices')
    optimizers = dict(denoiser=dict(adam, clip=clip, schedule=schedule))
    metrics: dict[str, Part] = {}
    if features is not None:
        measured = dict(type='FeatureMetric', network=features, reference=reference)
        metrics['generated'] = dict(measured, figures=figures, images='generated', prefix='generate_')
    looks: dict[str, Any] = dict(log=50, generations=dict(interval=pictures_every, classes=pictures_of), ema=ema)
    looks |= dict(evaluate=evaluate and dict(interval=evaluate, limit=evaluate_limit), validate=validate)
    saved = dict(interval=save_every, keep_last=3, keep_every=10 * save_every)
    callbacks, tiny_callbacks = watching(dict(evaluate=dict(limit=8)), **looks, checkpoint=saved)
    callbacks |= other_logs(given)
    little: Part = dict(denoiser=little_denoiser, losses=tiny_aligned)
    if 'steps' in model['sampler']:
        little['sampler'] = dict(steps=2)
    little |= chosen(bits_steps=bits_steps and 2)
    if guide is not None:
        little['guide'] = dict(denoiser=small(guide['denoiser'], pixels))
    little |= dict(image_size=32) if pixels else dict(tokenizer=frozen.tiny)
    tiny = dict(model=little, optimizers=dict(denoiser=dict(schedule=TINY_SCHEDULE)), callbacks=tiny_callbacks)
    return merge(
        images,
        strategy(given, precision='bf16'),
        frozen.imports,
        dict(
            trainer=dict(type='Trainer', iters=iters, model=model, optimizers=optimizers, callbacks=callbacks),
            validator=dict(type='Validator', metrics=metrics),
            tiny=merge(tiny_data(given), dict(trainer=tiny, validator=dict(metrics=dict(generated=None)))),
        ),
    )


@recipe(diffusion, digits_features)
def digits_diffusion(
    given: Given,
    *,
    features_run: Annotated[str | None, 'a run of ic/digits.py: figures on its features; None: no such figures'] = None,
) -> Config:
    """A small class-conditional denoiser of handwritten digits, on the latents of a digits tokenizer."""
    tokens = dict(it_config='configs/digits/vq_ema.py', gives='features')
    schedule = dict(type='CosineSchedule', warmup=50, final=0.02)
    network = dict(dim=128, depth=6, heads=4, patch=2, label_std=1.0, path='beta', prediction='v')
    training = dict(iters=900, lr=2e-3, ema=0.99, precision='fp32', schedule=schedule)
    drawn = dict(sampler='DPMSolver', steps=20, guidance=2.0)
    features = None if features_run is None else digits_features(given, features_run=features_run)
    measured = dict(features=features, figures=('fid', 'precision_recall'))
    watched = dict(save_every=450, pictures_every=450, evaluate=900, evaluate_limit=None)
    return diffusion(given, **IMAGES, **LOADING, **tokens, **network, **training, **drawn, **measured, **watched)
