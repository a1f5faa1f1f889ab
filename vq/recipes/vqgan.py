"""The VQGAN family on photographs: VQGAN, CVQ-VAE, LlamaGen's tokenizer, scalar quantization."""

from __future__ import annotations

import math
from typing import Annotated, Any

from vq.core.errors import ConfigError
from vq.core.recipe import REQUIRED, Config, Given, Part, merge, recipe
from vq.recipes.data import data, image_size_in, photo_data
from vq.recipes.parts import TINY_CONV, conv_tokenizer, of_types, photo_runner
from vq.recipes.strategy import strategy

L1_LPIPS = dict(l1=dict(type='L1Loss'), lpips=dict(type='LPIPSLoss'))
L2_LPIPS = dict(l2=dict(type='MSELoss'), lpips=dict(type='LPIPSLoss'))


@recipe(conv_tokenizer, photo_runner, data, strategy)
def vqgan(
    given: Given,
    *,
    losses: Annotated[dict[str, Any], 'reconstruction losses, by name'] = L1_LPIPS,
    discriminator: Annotated[Part, 'network that tells images from reconstructions'] = dict(type='PatchGAN', depth=3),
    generator_loss: Annotated[str, 'type of the adversarial term of the tokenizer'] = 'HingeGeneratorLoss',
    discriminator_loss: Annotated[str, "type of the discriminator's loss"] = 'HingeDiscriminatorLoss',
    generator_weight: Annotated[Part, 'weight of the adversarial term'] = dict(type='AdaptiveWeight', gain=0.8),
    discriminator_weight: Annotated[float, 'factor of the adversarial term, on top of generator_weight'] = 1.0,
    discriminator_start: Annotated[int, 'step at which the discriminator starts to train'] = 0,
    warmup: Annotated[int, 'steps after discriminator_start in which the adversarial term is still off'] = 0,
    ramp: Annotated[int, 'further steps in which the adversarial term grows to its weight'] = 0,
    penalties: Annotated[dict[str, Any], 'discriminator penalties, by name: R1Penalty, LeCamPenalty'] = {},
    lr: Annotated[float, 'learning rate of Adam, tokenizer'] = 5.4e-5,
    discriminator_lr: Annotated[float, 'learning rate of Adam, discriminator'] = 4.32e-4,
    betas: Annotated[tuple[float, float], 'betas of both Adams'] = (0.5, 0.9),
) -> Config:
    """VQGAN (Esser et al. 2021): a convolutional VQ autoencoder trained with L1, LPIPS and a discriminator.

        image x -> encoder -> nearest code -> decoder -> x'
        tokenizer:      |x - x'| + LPIPS(x, x') + mse(code, sg(z)) + 0.25 mse(sg(code), z) - weight * E D(x')
        discriminator:  (E max(0, 1 - D(x)) + E max(0, 1 + D(x'))) / 2

    Needs two files of pretrained weights: python -m vq.tools.prepare_checkpoints lpips torchvision-vgg16
    """
    photos, small = photo_data(given), dict(width=8, depth=2) if 'PatchGAN' in discriminator['type'] else {}
    if 'StyleGAN2' in discriminator['type']:
        discriminator = {'image_size': image_size_in(photos), **discriminator}
        small = dict(image_size=32, channel_base=256, channel_max=8)
    networks = dict(tokenizer=conv_tokenizer(given), discriminator=discriminator)
    adversarial = of_types(generator_loss=generator_loss, discriminator_loss=discriminator_loss)
    weights = dict(weight=generator_weight, discriminator_weight=discriminator_weight)
    phases = dict(discriminator_start=discriminator_start, warmup=warmup, ramp=ramp)
    terms = dict(losses=losses, penalties=penalties, **adversarial, **weights, **phases)
    model = dict(type='AdversarialTokenization', **networks, **terms)
    tiny = dict(tokenizer=TINY_CONV, losses=dict(lpips=dict(net='squeeze')), discriminator=small)
    tiny['discriminator_start'] = min(discriminator_start, 3)
    adam = dict(type='Adam', betas=tuple(betas))
    optimizers = dict(tokenizer=dict(adam, lr=lr), discriminator=dict(adam, lr=discriminator_lr))
    return merge(photos, photo_runner(given, model, optimizers, dict(model=tiny)))


@recipe(conv_tokenizer, photo_runner, data, strategy)
def autoencoder(given: Given) -> Config:
    """A convolutional VQ autoencoder for photographs: 256 pixels, 16 x 16 tokens, an EMA codebook with restarts.

    Reconstruction losses only: sharp reconstructions need the adversarial and perceptual losses of VQGAN.
    """
    codebook = dict(type='VectorQuantizer', update=dict(type='EMAUpdate', decay=0.99, restart=dict()))
    tokenizer = conv_tokenizer(given, codebook_size=1024, quantizer=codebook)
    model = dict(type='ImageTokenization', tokenizer=tokenizer, losses=dict(l1=dict(type='L1Loss')))
    adam = dict(type='AdamW', lr=1e-4, betas=(0.9, 0.99), weight_decay=1e-4, clip=1.0)
    schedule, tiny_schedule = dict(type='LinearSchedule', warmup=5000, final=0.1), dict(type='LinearSchedule', warmup=2)
    tiny = dict(
        optimizers=dict(tokenizer=dict(schedule=dict(_delete_=True, **tiny_schedule))), model=dict(tokenizer=TINY_CONV)
    )
    without = dict.fromkeys(('l2', 'ssim_uniform', 'lpips', 'features', 'window'))
    return merge(
        photo_data(given),
        strategy(given, precision='bf16'),
        photo_runner(given, model, dict(tokenizer=dict(adam, schedule=schedule)), tiny, ema=0.9999, evaluate=None),
        dict(validator=dict(metrics=without)),
    )


@recipe(vqgan)
def cvqvae(
    given: Given,
    *,
    distance: Annotated[str, 'cosine, or l2'] = 'cosine',
    update: Annotated[dict[str, Any], 'settings of the CVQUpdate, such as dict(decay=0.99)'] = {},
    codebook: Annotated[dict[str, Any], 'other settings of the VectorQuantizer'] = {},
) -> Config:
    """CVQ-VAE (Zheng and Vedaldi 2023): VQGAN in which idle codes move towards features of the batch in every step.

        p_k <- d p_k + (1 - d) share of code k,   a_k = exp(-10 K p_k / (1 - d) - eps)
        code_k <- (1 - a_k) code_k + a_k anchor_k

    The reference toolkit intended the cosine distance, but its config dropped the option, so it ran with L2; ours is cosine.
    The recipe is that of VQGAN with 8,192 codes, a discriminator of depth 2 (dd2) and a gain of 0.75 (aglwg075). Here codes
    move once per step, from the features of all ranks. In the reference toolkit they moved in both passes of a step.
    """
    quantizer = dict(type='VectorQuantizer', distance=distance, update=dict(type='CVQUpdate', **update), **codebook)
    adversarial = dict(discriminator=dict(type='PatchGAN', depth=2), generator_weight=dict(type='AdaptiveWeight', gain=0.75))
    return vqgan(given, quantizer=quantizer, **adversarial)


@recipe(vqgan)
def llamagen_tokenizer(given: Given) -> Config:
    """LlamaGen's image tokenizer (Sun et al. 2024): VQGAN with unit-length codes of few channels, so that codes stay in use.

        codes and features of unit length;  MSE + LPIPS + 0.5 * adversarial from step 20,000 on;  Adam 1e-4, (0.9, 0.95)

    LlamaGen's entropy term is left out, as its weight is 0 in their code.
    """
    codes = dict(codebook_size=16384, embedding_dim=8, quantizer=dict(type='VectorQuantizer', normalize=True))
    weights = dict(generator_weight=dict(type='FixedWeight', value=0.5), discriminator_weight=0.5)
    adam = dict(lr=1e-4, discriminator_lr=1e-4, betas=(0.9, 0.95))
    training = dict(batch_size=128, iters=400_000, discriminator_start=20_000)
    return vqgan(given, losses=L2_LPIPS, **codes, **weights, **adam, **training)


@recipe(vqgan, hides=('quantizer', 'codebook_size', 'embedding_dim'))
def scalar_quantization(
    given: Given,
    *,
    levels: Annotated[list[int], 'number of levels of each channel'] = REQUIRED,
    bound: Annotated[str, 'bound of the FiniteScalarQuantizer, such as inner'] = 'inner',
    widths: Annotated[tuple[int, ...], 'channels between the 1x1 convolutions'] = (256,),
) -> Config:
    """Scalar quantization in VQGAN's autoencoder: every channel is rounded to one of a few levels.

        image x -> encoder -> 256 -> 256 -> d channels -> rounded -> d -> 256 -> 256 -> decoder -> x'
        tokenizer:      |x - x'| + LPIPS(x, x') - weight * E D(x'), without a codebook loss
        discriminator:  (E max(0, 1 - D(x)) + E max(0, 1 + D(x'))) / 2

    The arrows between numbers are 1x1 convolutions without activations. d is the number of channels. Every combination of
    levels is a code. Codes have no parameters, so none can die. Other defaults are those of VQGAN.
    """
    levels = [int(level) for level in levels]
    chain, narrow = dict(_delete_=True, type='ChainConnector', widths=tuple(widths)), dict(widths=(16,))
    quantizer = dict(type='FiniteScalarQuantizer', levels=levels, bound=bound)
    tiny_quantizer = dict(_delete_=True, levels=[4, 4, 4])
    own, small = (
        dict(post_encode=chain, pre_decode=chain),
        dict(post_encode=narrow, pre_decode=narrow, quantizer=tiny_quantizer),
    )
    trainer, tiny = dict(model=dict(tokenizer=own)), dict(model=dict(tokenizer=small))
    return merge(vqgan(given, quantizer=quantizer), dict(trainer=trainer, tiny=dict(trainer=tiny)))


LEVELS = {8000: [8, 8, 5, 5, 5], 64000: [8, 8, 8, 5, 5, 5]}


@recipe(scalar_quantization)
def fsq(
    given: Given,
    *,
    codebook_size: Annotated[int, 'codes: 8000, 64000, or the product of levels'] = REQUIRED,
    levels: Annotated[list[int] | None, 'number of levels of each channel; None: those known for codebook_size'] = None,
) -> Config:
    """FSQ (Mentzer et al. 2023) in VQGAN's autoencoder: the number of codes selects the levels of each channel.

    8,000 = 8 x 8 x 5 x 5 x 5        64,000 = 8 x 8 x 8 x 5 x 5 x 5
    """
    chosen = levels or LEVELS.get(codebook_size)
    said = levels is None or given.options.has('codebook_size')  # levels alone override the codebook_size of the config file
    if chosen is None or (said and math.prod(chosen) != codebook_size):
        known = f'known for {sorted(LEVELS)}' if chosen is None else f'{chosen}, whose product is {math.prod(chosen)}'
        raise ConfigError(
            f'the option codebook_size is {codebook_size}, and levels are {known}',
            'Give one of these, or the levels of the channels alone: --config-options levels:[8,5,5,5].',
        )
    return scalar_quantization(given, levels=chosen)
