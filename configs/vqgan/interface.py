"""VQGAN (Esser et al. 2021): a convolutional VQ autoencoder trained with L1, LPIPS and a discriminator.

    image x -> encoder -> nearest code -> decoder -> x'
    tokenizer:      |x - x'| + LPIPS(x, x') + mse(code, sg(z)) + 0.25 mse(sg(code), z) - weight * E D(x')
    discriminator:  (E max(0, 1 - D(x)) + E max(0, 1 + D(x'))) / 2

Two files of pretrained weights: python tools/prepare_checkpoints.py lpips torchvision-vgg16

Options: ``dataset`` (imagenet, folder, digits), ``data_root``, ``image_size`` (256), ``augmentation`` (strong), those of
models/conv_vqgan.py and runners/tokenizer.py, ``strategy`` (ddp), ``precision`` (fp32), ``batch_size`` (96 in total), and

- ``losses`` (l1 and lpips), ``discriminator`` (a PatchGAN of depth 3), ``discriminator_weight`` (1)
- ``discriminator_start`` (0), ``warmup`` (0), ``ramp`` (0): steps; see AdversarialTokenization
- ``generator_weight`` (an AdaptiveWeight with gain 0.8), ``penalties`` (none; R1 and LeCam are at hand)
- ``lr`` (5.4e-5), ``discriminator_lr`` (4.32e-4), ``betas`` ((0.5, 0.9)) of Adam
"""

from vq.core import PyConfig

_kwargs_.setdefault('dataset', 'imagenet')
_kwargs_.setdefault('image_size', 256)
_kwargs_.setdefault('augmentation', 'strong')
_kwargs_.setdefault('batch_size', 96)
_kwargs_.setdefault('batch_size_in_total', True)
_kwargs_.setdefault('num_workers', 5)
_kwargs_.setdefault('strategy', 'ddp')
_kwargs_.setdefault(
    'optimize',
    [dict(type='OptimizeCallback', optimizer='tokenizer'), dict(type='OptimizeCallback', optimizer='discriminator')],
)

betas = tuple(_kwargs_.get('betas', (0.5, 0.9)))
# of each setting, what it is when tiny: a kind of discriminator has widths of its own
discriminator = _kwargs_.get('discriminator', dict(type='PatchGAN', depth=3))
tiny_discriminator = (
    dict(image_size=32, channel_base=256, channel_max=8) if 'StyleGAN2' in discriminator['type'] else dict(width=8, depth=2)
)

_base_ = ['../datasets/interface.py', '../strategies/interface.py', '../runners/tokenizer.py']

_export_ = dict(
    trainer=dict(
        model=dict(
            type='AdversarialTokenization',
            tokenizer=PyConfig.load('../models/conv_vqgan.py', **_kwargs_),
            losses=_kwargs_.get('losses', dict(l1=dict(type='L1Loss'), lpips=dict(type='LPIPSLoss'))),
            discriminator=discriminator,
            generator_loss=dict(type=_kwargs_.get('generator_loss', 'HingeGeneratorLoss')),
            discriminator_loss=dict(type=_kwargs_.get('discriminator_loss', 'HingeDiscriminatorLoss')),
            weight=_kwargs_.get('generator_weight', dict(type='AdaptiveWeight', gain=0.8)),
            penalties=_kwargs_.get('penalties', {}),
            discriminator_weight=_kwargs_.get('discriminator_weight', 1.0),
            discriminator_start=_kwargs_.get('discriminator_start', 0),
            warmup=_kwargs_.get('warmup', 0),
            ramp=_kwargs_.get('ramp', 0),
        ),
        optimizers=dict(
            tokenizer=dict(type='Adam', lr=_kwargs_.get('lr', 5.4e-5), betas=betas),
            discriminator=dict(type='Adam', lr=_kwargs_.get('discriminator_lr', 4.32e-4), betas=betas),
        ),
    ),
    tiny=dict(
        trainer=dict(
            model=dict(
                tokenizer=dict(
                    encoder=dict(width=8, out_channels=16),
                    quantizer=dict(codebook_size=64, embedding_dim=8),
                    decoder=dict(width=8),
                ),
                losses=dict(lpips=dict(net='squeeze')),
                discriminator=tiny_discriminator,
                discriminator_start=min(_kwargs_.get('discriminator_start', 0), 3),
            ),
        ),
        validator=dict(metrics=dict(codebook=dict(codebook_size=64))),
    ),
)
