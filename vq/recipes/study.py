"""The VQ-VAE/GAN study: four quantizers, and an ablation of the parts of a GAN."""

from __future__ import annotations

from typing import Annotated, Literal

from vq.core.errors import ConfigError
from vq.core.recipe import Config, Given, Part, alias, merge, recipe
from vq.core.specs import ImageSize
from vq.recipes.data import data, photo_data
from vq.recipes.parts import photo_runner
from vq.recipes.strategy import strategy

BLOCKS = dict(residual_blocks=2, attention_levels=(), refine_attention=False, resample_last=True)
LAYERS = dict(norm='group_unbiased', conv_bias=False)


def study_tokenizer(kind: str, codes: int, later: bool) -> tuple[Part, Part]:
    """The tokenizer, and its overrides in the tiny form."""
    width, multipliers = (128, (1, 2, 2, 4)) if later else (64, (1, 2, 4, 8))
    gumbel = kind == 'gumbel'
    settings: dict[str, Part] = dict(
        standard={},
        ema=dict(update=dict(type='EMAUpdate', decay=0.95, eps=1e-5)),
        entropy=dict(entropy=dict(weight=0.1, temperature=0.01)),
        gumbel=dict(feature_dim=codes, straight_through=False, init='uniform', kl_weight=0.0),
    )
    encoder = dict(width=width, downsample='average', out_channels=codes if gumbel else 256, out_kernel_size=1)
    stem = dict(in_channels=256, stem_multiplier=multipliers[-1])
    decoder = dict(width=width, upsample='nearest' if later else 'repeat', output='tanh', **stem)
    kind_of = 'GumbelQuantizer' if gumbel else 'VectorQuantizer'
    whole = dict(
        type='VQGAN',
        encoder=dict(type='ConvEncoder', multipliers=multipliers, **encoder, **BLOCKS, **LAYERS),
        quantizer=dict(type=kind_of, codebook_size=codes, embedding_dim=256, **settings[kind]),
        decoder=dict(type='ConvDecoder', multipliers=(1, *multipliers[:-1]), **decoder, **BLOCKS, **LAYERS),
    )
    tiny = dict(
        encoder=dict(width=8, multipliers=(1, 2), out_channels=64 if gumbel else 8),
        quantizer=dict(codebook_size=64, embedding_dim=8, **(dict(feature_dim=64) if gumbel else {})),
        decoder=dict(width=8, multipliers=(1, 1), stem_multiplier=2, in_channels=8),
    )
    return whole, tiny


@recipe()
def study_lpips(given: Given, weight: float, *, lpips_net: Annotated[str, 'network of LPIPS'] = 'vgg') -> Part:
    return dict(type='LPIPSLoss', weight=weight, net=lpips_net)


@recipe()
def study_r1(given: Given, *, r1: Annotated[float | None, 'weight of R1, every 16 steps; None: no R1'] = None) -> Part:
    return {} if r1 is None else dict(r1=dict(type='R1Penalty', weight=r1, interval=16))


@recipe(study_lpips, study_r1, photo_runner, data, strategy)
def vqvae_gan_study(
    given: Given,
    *,
    recipe: Annotated[Literal['tables', 'later'], "recipe of the study's result tables, or its later recipe"] = 'tables',
    quantizer: Annotated[Literal['standard', 'ema', 'entropy', 'gumbel'], 'how codes are chosen and learned'] = 'standard',
    codebook_size: Annotated[int, 'codes', alias('num_embeddings')] = 1024,
    reinit: Annotated[int | None, 'epochs between reinitializations of unused codes; None: never'] = None,
    adversarial: Annotated[Literal['fixed', 'adaptive'] | None, 'adversarial weight; None: no discriminator'] = None,
    perceptual: Annotated[bool | None, 'add L1 and LPIPS to L2; None: with a discriminator'] = None,
    lr: Annotated[float | None, 'learning rate of AdamW, for 256 images a step; None: 1e-4 (GAN, later) or 3e-4'] = None,
    epochs: Annotated[int | None, 'epochs of training; None: 150, in the later recipe 300'] = None,
    images: Annotated[int, 'images per epoch'] = 1_281_167,
    image_size: Annotated[ImageSize, 'pixels a side, or (height, width)'] = 256,
    batch_size: Annotated[int, 'images per step, of all ranks; the learning rate scales with its square root'] = 256,
) -> Config:
    """The VQ-VAE/GAN study (SerezD, vqvae-vqgan-pytorch-lightning): four quantizers, and an ablation of the parts of a GAN.

        encoder without attention, 256 pixels -> 16 x 16 cells of 256 numbers -> codes -> decoder -> tanh
        tokenizer:      L1 + L2 + LPIPS, weighted, + quantizer losses + weight * E softplus(-D(x'));  the plain VQ-VAE L2 alone
        discriminator:  E softplus(-D(x)) + E softplus(D(x')) + 10 E |grad_x D(x)|^2 every 16 steps;  network of StyleGAN2

    The option ``recipe`` selects one of two recipes. 'tables' is that of the project's result tables, after the example
    configs published with them: 64 channels times 1, 2, 4, 8, upsampling without a convolution, 150 epochs, and the parameter
    counts of the tables (tests/tokenizers/test_study_counts.py). 'later' is the project's later recipe: 128 channels times 1,
    2, 2, 4, upsampling with a convolution, 300 epochs, a discriminator from epoch 100 on.

                  loss weights l1, l2, lpips    learning rate                  betas        temperature, kl rise over
        tables    0.1, 1.0, 0.1                 3e-4 (GAN 1e-4), cosine /10    0.9, 0.999   7.5, 0.24 epochs
        later     0.8, 0.2, 1.0                 1e-4, cosine /2 until 250      0.0, 0.99    15, 0.48 epochs

    Intended differences from the original code:

    - R1: our term is weight times interval, so it is 16 times theirs. ``r1=0.625`` gives their weight.
    - EMA codebook: we smooth over the count of vectors. They smooth over the count of images, which enlarges codes by a few
      percent.
    - LPIPS: VGG everywhere. They used AlexNet without a discriminator (``lpips_net``).
    - Reinitialized codes get a small offset from the code they copy, and their optimizer moments are cleared.
    - Gumbel codes are evaluated without noise.
    - Crops and flips are on. In the code of the tables they were never on (``augmentation::none``).
    - Counts of codes are sums over ranks and batches: a code is unused if a whole epoch does not use it.
    """
    later = recipe == 'later'
    perceptual = adversarial is not None if perceptual is None else perceptual
    if adversarial == 'adaptive' and not perceptual:
        raise ConfigError('an adaptive weight compares with LPIPS, and perceptual is False', 'Set perceptual:True.')
    epoch = max(1, images // batch_size)  # steps; the last batch is not filled up

    def steps(count: float) -> int:
        return max(1, round(count * epoch))

    def anneal(setting: str, start: float, end: float, count: float) -> Part:
        course = dict(type='CosineSchedule', final=end / start, length=steps(count))
        return dict(type='AnnealCallback', setting=f'tokenizer.quantizer.{setting}', value=start, schedule=course)

    tokenizer, tiny_tokenizer = study_tokenizer(quantizer, codebook_size, later)
    model: Part = dict(type='ImageTokenization', tokenizer=tokenizer, losses=dict(l2=dict(type='MSELoss')))
    tiny: Config = dict(model=dict(tokenizer=tiny_tokenizer))
    l1, l2, lpips = (0.8, 0.2, 1.0) if later else (0.1, 1.0, 0.1)
    if perceptual:
        pixels = dict(l1=dict(type='L1Loss', weight=l1), l2=dict(type='MSELoss', weight=l2))
        model['losses'] = dict(pixels, lpips=study_lpips(given, lpips))
        tiny['model']['losses'] = dict(lpips=dict(net='squeeze'))
    lr = lr if lr is not None else 1e-4 if adversarial or later else 3e-4
    adam = dict(type='AdamW', lr=lr, betas=(0.0, 0.99) if later else (0.9, 0.999), weight_decay=1e-4)
    optimizers = dict(tokenizer=dict(adam, decay='matrices'))
    if adversarial:
        # the study takes the gradient of the unweighted LPIPS for the ratio, and clamps the ratio to 1e4
        adaptive = dict(type='AdaptiveWeight', gain=0.8 / lpips, limit=1e4 * lpips, eps=1e-8, losses=('lpips',))
        weight = adaptive if adversarial == 'adaptive' else dict(type='FixedWeight', value=0.1)
        network, penalties = dict(type='StyleGAN2Discriminator', image_size=image_size), study_r1(given)
        vanilla = dict(type='VanillaDiscriminatorLoss', scale=1.0)
        model |= dict(generator_loss=dict(type='NonSaturatingGeneratorLoss'), discriminator_loss=vanilla, weight=weight)
        model |= dict(discriminator=network, discriminator_start=steps(100 if later else 1), penalties=penalties)
        model['type'] = 'AdversarialTokenization'
        small = dict(image_size=32, channel_base=256, channel_max=8)
        often = {name: dict(interval=2) for name in penalties}
        tiny['model'] |= dict(discriminator=small, discriminator_start=3, penalties=often)
        optimizers['discriminator'] = dict(adam, decay='all')
    callbacks: Config = {}
    if reinit is not None:
        callbacks['reinit'] = dict(type='ReinitCallback', epochs=reinit)
        tiny['callbacks'] = dict(reinit=dict(_delete_=True, type='ReinitCallback', iterations=3))
    if quantizer == 'gumbel':  # schedules are factors that start at 1, so a rising value starts at 1e-6, not 0
        slower = 2 if later else 1
        callbacks['temperature'] = anneal('temperature', 1.0, 1 / 16, 7.5 * slower)
        # the KL weight ends at 6.6 / 768, where 768 is the number of image values per cell
        callbacks['kl_weight'] = anneal('kl_weight', 1e-6, 0.00859375, 0.24 * slower)
    schedule = dict(type='CosineSchedule', final=0.5, length=steps(250)) if later else dict(type='CosineSchedule', final=0.1)
    iters = (epochs or (300 if later else 150)) * epoch
    optimize = dict(scale_lr='sqrt', schedule=schedule)
    return merge(
        photo_data(given, augmentation='square', image_size=image_size, batch_size=batch_size, num_workers=8),
        photo_runner(given, model, optimizers, tiny, iters=iters, optimize=optimize, callbacks=callbacks),
    )
