"""The VQ-VAE/GAN study (SerezD, vqvae-vqgan-pytorch-lightning): four quantizers, and what each part of a GAN brings.

    encoder without attention, 256 pixels -> 16 x 16 cells of 256 numbers -> codes -> decoder -> tanh
    tokenizer:      L1 + L2 + LPIPS, weighted, + quantizer losses + weight * E softplus(-D(x'));  the plain one L2 alone
    discriminator:  E softplus(-D(x)) + E softplus(D(x')) + 10 E |grad_x D(x)|^2 every 16 steps;  StyleGAN2's

Two recipes, by the option ``recipe``. 'tables' is that of the project's result tables, read off the example configs beside
them: 64 channels times 1, 2, 4, 8, enlarging without a convolution, 150 epochs, and the parameter counts of the tables
(tests/tokenizers/test_study_counts.py). 'later' is what the project moved on to: 128 channels times 1, 2, 2, 4, enlarging with
a convolution, 300 epochs, a discriminator from the 100th on.

              loss weights l1, l2, lpips    learning rate                  betas        temperature, kl rise over
    tables    0.1, 1.0, 0.1                 3e-4 (GAN 1e-4), cosine /10    0.9, 0.999   7.5, 0.24 epochs
    later     0.8, 0.2, 1.0                 1e-4, cosine /2 until 250      0.0, 0.99    15, 0.48 epochs

Where we differ on purpose: weight and interval of R1 are multiplied, so it is 16 times theirs (``r1=0.625`` is theirs); an EMA
codebook is smoothed over the count of vectors, theirs over that of images, which swells codes by some percent; LPIPS is VGG's
throughout, theirs was AlexNet's without a discriminator (``lpips_net``); codes that start again move a little off the one they
copy, and their optimizer moments are cleared; Gumbel codes are evaluated without noise; the crops and flips are on, while the
code beside the tables never switched them on (``augmentation::none``); counts of codes are sums over ranks and batches, so
that unused codes are unused in a whole epoch.

Options: ``recipe`` (tables, or later), ``quantizer`` (standard, ema, entropy, gumbel), ``reinit`` (epochs after which unused
codes start again, None: never), ``perceptual`` (with a discriminator), ``adversarial`` (None, fixed, adaptive), ``r1`` (None,
or a weight), ``num_embeddings`` (1024), ``lpips_net`` (vgg), ``lr``, ``epochs``, ``batch_size`` (256 in total; the learning
rate follows its square root), ``images`` (1,281,167: of an epoch, for a folder of your own), those of runners/tokenizer.py but
``iters``, ``optimize``, ``anneal``, and those of the dataset and strategy.
"""

from vq.core.errors import ConfigError


def option(name, default, choices):
    value = _kwargs_.get(name, default)
    if value not in choices:
        shown = ', '.join(map(str, choices))
        raise ConfigError(f"the option {name} is {value!r}, which the study's configs do not have", f'It is one of: {shown}.')
    return value


_kwargs_.setdefault('dataset', 'imagenet')
_kwargs_.setdefault('image_size', 256)
_kwargs_.setdefault('augmentation', 'square')
_kwargs_.setdefault('batch_size', 256)
_kwargs_.setdefault('batch_size_in_total', True)
_kwargs_.setdefault('num_workers', 8)
_kwargs_.setdefault('strategy', 'ddp')
_kwargs_.setdefault('num_embeddings', 1024)

later = option('recipe', 'tables', ('tables', 'later')) == 'later'
kind = option('quantizer', 'standard', ('standard', 'ema', 'entropy', 'gumbel'))
adversarial = option('adversarial', None, (None, 'fixed', 'adaptive'))
perceptual = _kwargs_.get('perceptual', adversarial is not None)
if adversarial == 'adaptive' and not perceptual:
    raise ConfigError('an adaptive weight compares with LPIPS, and perceptual is False', 'Set perceptual:True.')

image_size, codes = _kwargs_['image_size'], _kwargs_['num_embeddings']
epoch = max(1, _kwargs_.get('images', 1_281_167) // _kwargs_['batch_size'])  # steps; the last batch is not filled up
epochs = _kwargs_.get('epochs', 300 if later else 150)
l1, l2, lpips = (0.8, 0.2, 1.0) if later else (0.1, 1.0, 0.1)


def steps(count):
    return max(1, round(count * epoch))


# networks

width, multipliers = (128, (1, 2, 2, 4)) if later else (64, (1, 2, 4, 8))
shape = dict(
    width=width,
    residual_blocks=2,
    attention_levels=(),
    refine_attention=False,
    resample_last=True,
    norm='group_unbiased',
    conv_bias=False,
)
quantizers = dict(
    standard=dict(type='VectorQuantizer'),
    ema=dict(type='VectorQuantizer', update=dict(type='EMAUpdate', decay=0.95, eps=1e-5)),
    entropy=dict(type='VectorQuantizer', entropy=dict(weight=0.1, temperature=0.01)),
    gumbel=dict(type='GumbelQuantizer', feature_dim=codes, straight_through=False, init='uniform', kl_weight=0.0),
)
tokenizer = dict(
    type='VQGAN',
    encoder=dict(
        type='ConvEncoder',
        multipliers=multipliers,
        downsample='average',
        out_channels=codes if kind == 'gumbel' else 256,
        out_kernel_size=1,
        **shape,
    ),
    quantizer=dict(quantizers[kind], codebook_size=codes, embedding_dim=256),
    decoder=dict(
        type='ConvDecoder',
        in_channels=256,
        multipliers=(1, *multipliers[:-1]),
        stem_multiplier=multipliers[-1],
        upsample='nearest' if later else 'repeat',
        output='tanh',
        **shape,
    ),
)
tiny_tokenizer = dict(
    encoder=dict(width=8, multipliers=(1, 2), out_channels=64 if kind == 'gumbel' else 8),
    quantizer=dict(codebook_size=64, embedding_dim=8, **(dict(feature_dim=64) if kind == 'gumbel' else {})),
    decoder=dict(width=8, multipliers=(1, 1), stem_multiplier=2, in_channels=8),
)

# losses

model = dict(type='ImageTokenization', tokenizer=tokenizer, losses=dict(l2=dict(type='MSELoss')))
tiny_model = dict(tokenizer=tiny_tokenizer)
if perceptual:
    model['losses'] = dict(
        l1=dict(type='L1Loss', weight=l1),
        l2=dict(type='MSELoss', weight=l2),
        lpips=dict(type='LPIPSLoss', weight=lpips, net=_kwargs_.get('lpips_net', 'vgg')),
    )
    tiny_model['losses'] = dict(lpips=dict(net='squeeze'))
if adversarial:
    r1 = _kwargs_.get('r1')
    # the study compares with LPIPS before its weight, and limits that ratio to 1e4
    adaptive = dict(type='AdaptiveWeight', gain=0.8 / lpips, limit=1e4 * lpips, eps=1e-8, losses=('lpips',))
    model.update(
        type='AdversarialTokenization',
        discriminator=dict(type='StyleGAN2Discriminator', image_size=image_size),
        generator_loss=dict(type='NonSaturatingGeneratorLoss'),
        discriminator_loss=dict(type='VanillaDiscriminatorLoss', scale=1.0),
        weight=adaptive if adversarial == 'adaptive' else dict(type='FixedWeight', value=0.1),
        penalties={} if r1 is None else dict(r1=dict(type='R1Penalty', weight=r1, interval=16)),
        discriminator_start=steps(100 if later else 1),
    )
    tiny_model.update(
        discriminator=dict(image_size=32, channel_base=256, channel_max=8),
        discriminator_start=3,
        penalties={} if r1 is None else dict(r1=dict(interval=2)),
    )

# optimizers; the learning rate is for 256 images a step

lr = _kwargs_.get('lr', 1e-4 if adversarial or later else 3e-4)
adam = dict(type='AdamW', lr=lr, betas=(0.0, 0.99) if later else (0.9, 0.999), weight_decay=1e-4)
schedule = dict(type='CosineSchedule', final=0.5, length=steps(250)) if later else dict(type='CosineSchedule', final=0.1)
names = ['tokenizer', 'discriminator'] if adversarial else ['tokenizer']
optimizers = {name: dict(adam, decay='matrices' if name == 'tokenizer' else 'all') for name in names}
_kwargs_.setdefault(
    'optimize', [dict(type='OptimizeCallback', optimizer=name, scale_lr='sqrt', schedule=schedule) for name in names]
)


# what changes on the way; schedules start at 1, so what rises does so from a millionth


def anneal(setting, start, end, count):
    course = dict(type='CosineSchedule', final=end / start, length=steps(count))
    return dict(type='AnnealCallback', setting=f'tokenizer.quantizer.{setting}', value=start, schedule=course)


reinit = _kwargs_.get('reinit')
on_the_way = [] if reinit is None else [dict(type='ReinitCallback', epochs=reinit)]
tiny_patches = {} if reinit is None else {'.callbacks[0]': dict(type='ReinitCallback', iterations=3)}
if kind == 'gumbel':
    slower = 2 if later else 1
    on_the_way += [
        anneal('temperature', 1.0, 1 / 16, 7.5 * slower),
        anneal('kl_weight', 1e-6, 0.00859375, 0.24 * slower),  # 6.6 / 768, the numbers of an image per cell
    ]
_kwargs_.setdefault('anneal', on_the_way)
_kwargs_.setdefault('iters', epochs * epoch)

_base_ = ['../datasets/interface.py', '../strategies/interface.py', '../runners/tokenizer.py']

_export_ = dict(
    trainer=dict(model=model, optimizers=optimizers),
    tiny=dict(
        trainer=dict(model=tiny_model, _override_=tiny_patches), validator=dict(metrics=dict(codebook=dict(codebook_size=64)))
    ),
)
