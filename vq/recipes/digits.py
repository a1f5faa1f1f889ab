"""Tokenizers of handwritten digits: small enough to be trained on a laptop in two minutes."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from vq.core.recipe import Config, Given, Part, alias, merge, recipe
from vq.recipes.data import data
from vq.recipes.parts import TINY_SCHEDULE, by_name, code_sizes, of_types, other_logs, sized, watching
from vq.recipes.perturbed import disturbed
from vq.recipes.strategy import chosen, strategy

EMA = dict(type='EMAUpdate', decay=0.97, restart=dict(threshold=0.1))
EMA_CODEBOOK = dict(type='VectorQuantizer', commitment_weight=0.25, update=EMA)
SETTLING = dict(type='CosineSchedule', warmup=50, final=0.02)
OF_CODES = ('quantizer', 'codebook_size', 'embedding_dim')


@recipe(data, strategy, code_sizes, disturbed, other_logs)
def digits_tokenizer(
    given: Given,
    *,
    quantizer: Annotated[Part | None, 'None: a tokenizer without codes'] = EMA_CODEBOOK,
    width: Annotated[int, 'channels of the first level'] = 16,
    features: Annotated[int, 'channels of the output of the encoder'] = 64,
    connector: Annotated[str, 'type of the layer between encoder and quantizer'] = 'ConvConnector',
    iters: Annotated[int, 'optimizer steps'] = 700,
    lr: Annotated[float, 'learning rate of AdamW'] = 2e-3,
    optimizer: Annotated[Part | None, 'optimizer in place of AdamW; None: AdamW'] = None,
    schedule: Annotated[Part, 'learning rate schedule'] = SETTLING,
    callbacks: Annotated[Any, 'more callbacks, by name', alias('code_callbacks')] = {},
    tiny_callbacks: Annotated[Any, 'overrides of these callbacks in the tiny form'] = {},
    log_every: Annotated[int, 'steps between lines of the log'] = 50,
    alarm_every: Annotated[int, 'steps between checks for unused codes'] = 100,
    evaluate: Annotated[int | None, 'steps between evaluations during training; None: no evaluation'] = 350,
    save_every: Annotated[int, 'steps between checkpoints'] = 350,
    keep_last: Annotated[int | None, 'checkpoints to keep; None: all'] = 2,
) -> Config:
    """A small convolutional autoencoder of 32 pixels, three levels: 4 x 4 = 16 tokens an image."""
    # Groups of several channels: 32 groups would be one channel each at these widths, which is slower (166 against 110 ms of
    # CPU time a step) and reconstructs worse (29.5 against 31.0 dB), both measured on training images that were held out.
    shape = dict(width=width, multipliers=(1, 2, 2, 4), attention_levels=(), refine=False, norm_groups=4)
    tokenizer = dict(
        type='VQGAN',
        encoder=dict(type='ConvEncoder', residual_blocks=1, out_channels=features, **shape),
        post_encode=dict(type=connector),
        pre_decode=dict(type='ConvConnector'),
        decoder=dict(type='ConvDecoder', residual_blocks=1, **shape),
        **disturbed(given),
    )
    metrics = of_types(l1='L1Metric', mse='MSEMetric', psnr='PSNRMetric', ssim='SSIMMetric')
    if quantizer is not None:
        tokenizer['quantizer'] = sized(given, quantizer, False, codebook_size=256, embedding_dim=8)
        metrics |= dict(codebook=dict(type='CodebookMetric'), window=dict(type='WindowedCodebookMetric', window=1024))
    model = dict(type='ImageTokenization', tokenizer=tokenizer, losses=dict(l2=dict(type='MSELoss')))
    adam = dict(type='AdamW', lr=lr, betas=(0.9, 0.99), weight_decay=1e-4)
    optimizers = dict(tokenizer=dict(optimizer or adam, clip=1.0, schedule=schedule))
    pictures, saved = dict(interval=350, count=10), dict(interval=save_every, **chosen(keep_last=keep_last))
    whole, small = watching(ema=0.99, log=log_every, pictures=pictures, alarm=alarm_every, evaluate=evaluate, checkpoint=saved)
    callbacks, tiny_callbacks = {**by_name(callbacks), **whole, **other_logs(given)}, {**by_name(tiny_callbacks), **small}
    narrow = dict(tokenizer=dict(encoder=dict(width=8, out_channels=16), decoder=dict(width=8)))
    tiny = dict(iters=8, model=narrow, optimizers=dict(tokenizer=dict(schedule=TINY_SCHEDULE)), callbacks=tiny_callbacks)
    return merge(
        data(given, dataset='digits', image_size=32, batch_size=16, val_batch_size=60, num_workers=0),
        strategy(given),
        dict(
            trainer=dict(type='Trainer', iters=iters, model=model, optimizers=optimizers, callbacks=callbacks),
            validator=dict(type='Validator', metrics=metrics),
            tiny=dict(trainer=tiny),
        ),
    )


@recipe(digits_tokenizer)
def digits_gan(
    given: Given,
    *,
    gain: Annotated[float, 'gain of the adaptive weight of the adversarial term'] = 0.1,
    start: Annotated[int, 'step at which the discriminator starts to train'] = 350,
    discriminator_lr: Annotated[float, 'learning rate of AdamW, discriminator'] = 1e-3,
) -> Config:
    """The digits tokenizer with a small discriminator, which starts to train halfway through the run."""
    return merge(digits_tokenizer(given), small_discriminator(gain, discriminator_lr, start, warmup=25, ramp=100))


def small_discriminator(gain: float, lr: float, start: int, warmup: int, ramp: int) -> Config:
    """What a config of a tokenizer needs for a discriminator of small images."""
    network = dict(type='PatchGAN', width=16, depth=2, norm='group', norm_groups=4)
    losses = of_types(generator_loss='HingeGeneratorLoss', discriminator_loss='HingeDiscriminatorLoss')
    adversarial = dict(losses, discriminator=network, weight=dict(type='AdaptiveWeight', gain=gain))
    model = dict(adversarial, type='AdversarialTokenization', discriminator_start=start, warmup=warmup, ramp=ramp)
    adam = dict(type='AdamW', lr=lr, betas=(0.5, 0.99), weight_decay=1e-4, clip=1.0)
    tiny_model = dict(discriminator=dict(width=8), discriminator_start=2, warmup=1, ramp=2)
    tiny = dict(model=tiny_model, optimizers=dict(tokenizer=dict(schedule=None)))
    return dict(trainer=dict(model=model, optimizers=dict(discriminator=adam)), tiny=dict(trainer=tiny))


@recipe(digits_tokenizer, hides=OF_CODES)
def digits_kl(
    given: Given,
    *,
    latent_channels: Annotated[int, 'latent channels per cell'] = 8,
    kl_weight: Annotated[float, 'weight of the KL divergence from N(0, 1)'] = 1e-6,
) -> Config:
    """A continuous autoencoder: every cell is a Gaussian in place of a code."""
    connectors = dict(post_encode=dict(out_channels=2 * latent_channels), pre_decode=dict(in_channels=latent_channels))
    own = dict(type='KLAutoencoder', kl_weight=kl_weight, decoder=dict(in_channels=64), **connectors)
    return merge(digits_tokenizer(given, quantizer=None), dict(trainer=dict(model=dict(tokenizer=own))))


# quantizers with additional options


@recipe(digits_tokenizer, hides=OF_CODES)
def digits_grouped(
    given: Given, *, groups: Annotated[int, 'groups of channels'] = 2, codes: Annotated[int, 'codes of each group'] = 16
) -> Config:
    """Product quantization."""
    inner = dict(type='VectorQuantizer', codebook_size=codes, embedding_dim=8 // groups, update=EMA)
    return digits_tokenizer(given, quantizer=dict(type='GroupedQuantizer', quantizer=inner, groups=groups))


@recipe(digits_tokenizer, hides=OF_CODES)
def digits_residual(
    given: Given, *, stages: Annotated[int, 'stages'] = 2, codes: Annotated[int, 'codes of each stage'] = 16
) -> Config:
    """Residual quantization."""
    inner = dict(type='VectorQuantizer', codebook_size=codes, embedding_dim=8, update=EMA)
    return digits_tokenizer(given, quantizer=dict(type='ResidualQuantizer', quantizer=inner, stages=stages))


@recipe(digits_tokenizer, hides=('quantizer',))
def digits_cvq(
    given: Given, *, anchor: Annotated[Literal['multinomial', 'nearest', 'cached'], 'target of idle codes'] = 'multinomial'
) -> Config:
    """CVQ-VAE with the contrastive loss."""
    update = dict(type='CVQUpdate', decay=0.97, anchor=anchor)
    return digits_tokenizer(given, quantizer=dict(type='VectorQuantizer', update=update, contrastive=dict(weight=1.0)))


@recipe(digits_tokenizer)
def digits_reinit(
    given: Given, *, source: Annotated[Literal['codes', 'features'], 'what unused codes are reinitialized from'] = 'codes'
) -> Config:
    """Codes are trained by gradient. Unused codes are reinitialized after every epoch."""
    again = dict(type='ReinitCallback', source=source)
    whole, tiny = dict(reinit=dict(again, epochs=1)), dict(reinit=dict(_delete_=True, **again, iterations=3))
    return digits_tokenizer(given, quantizer=dict(type='VectorQuantizer'), callbacks=whole, tiny_callbacks=tiny)


@recipe(digits_tokenizer)
def digits_kmeans(given: Given, *, delay: Annotated[int, 'steps before the k-means initialization'] = 100) -> Config:
    """Codes of unit length, trained by gradient and initialized with k-means centres of the features."""
    whole = dict(kmeans=dict(type='KMeansInitCallback', batches=64, delay=delay))
    tiny = dict(kmeans=dict(type='KMeansInitCallback', batches=2, iterations=2, delay=1))
    quantizer = dict(type='VectorQuantizer', normalize=True)
    return digits_tokenizer(given, quantizer=quantizer, callbacks=whole, tiny_callbacks=tiny)
