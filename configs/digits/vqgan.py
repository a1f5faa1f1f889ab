"""The EMA tokenizer of vq_ema.py against a small discriminator from half of the run on: VQGAN's recipe on digits.

    auto_torchrun -m vq.train digits_gan configs/digits/vqgan.py

The smallest place to try adversarial training in. 700 steps took 130 to 175 seconds on one of 2 shared CPU cores. Measured,
seed 3407, on the validation digits: 31.35 dB with gain 0.1, 31.22 dB with gain 0.3, 31.44 dB without a discriminator
(vq_ema.py, same machine), 100 % of the codes in use each time. The pictures look alike: digits of 8 x 8 original pixels hold
no texture that a discriminator could miss, so the demo trains without one.

Options: ``gain`` (0.1) and ``start`` (350) of the adversarial term, those of vq_ema.py.
"""

_kwargs_.setdefault('codebook_size', 256)
_kwargs_.setdefault(
    'quantizer',
    dict(
        type='VectorQuantizer',
        codebook_size=_kwargs_['codebook_size'],
        embedding_dim=_kwargs_.get('embedding_dim', 8),
        commitment_weight=0.25,
        update=dict(type='EMAUpdate', decay=0.97, restart=dict(threshold=0.1)),
    ),
)

adam = dict(betas=(0.5, 0.99), weight_decay=1e-4)
schedule = dict(type='CosineSchedule', warmup=50, final=0.02)
optimize = [
    dict(type='OptimizeCallback', optimizer='tokenizer', clip=1.0, schedule=schedule),
    dict(type='OptimizeCallback', optimizer='discriminator', clip=1.0),
]
shared = [
    dict(type='EMACallback', decay=0.99),
    dict(type='LogCallback', interval=50),
    dict(type='ProgressCallback'),
    dict(type='GitCallback'),
    dict(type='ImageGridCallback', interval=350, count=10),
    dict(type='CodebookAlarmCallback', interval=100),
    dict(type='PreemptionCallback'),
    dict(type='CheckpointCallback', interval=350, keep_last=2),
]

_base_ = ['interface.py']

_export_ = dict(
    trainer=dict(
        model=dict(
            type='AdversarialTokenization',
            discriminator=dict(type='PatchGAN', width=16, depth=2, norm='group', norm_groups=4),
            generator_loss=dict(type='HingeGeneratorLoss'),
            discriminator_loss=dict(type='HingeDiscriminatorLoss'),
            weight=dict(type='AdaptiveWeight', gain=_kwargs_.get('gain', 0.1)),
            discriminator_start=_kwargs_.get('start', 350),
            warmup=25,
            ramp=100,
        ),
        optimizers=dict(discriminator=dict(type='AdamW', lr=_kwargs_.get('discriminator_lr', 1e-3), **adam)),
        callbacks=[*optimize, *shared],
    ),
    tiny=dict(
        trainer=dict(
            model=dict(discriminator=dict(width=8), discriminator_start=2, warmup=1, ramp=2),
            callbacks=[
                *(dict(type='OptimizeCallback', optimizer=name, clip=1.0) for name in ('tokenizer', 'discriminator')),
                dict(type='EMACallback', decay=0.9),
                dict(type='LogCallback', interval=2),
                dict(type='ImageGridCallback', interval=4),
                dict(type='CodebookAlarmCallback', interval=4),
                dict(type='PreemptionCallback'),
                dict(type='CheckpointCallback', interval=4),
            ],
        ),
    ),
)
