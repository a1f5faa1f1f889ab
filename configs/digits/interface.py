"""What every tokenizer of the digits family shares: data, strategy, the small autoencoder, the runners.

Options: ``quantizer`` (a dict, from the file that loads this one; None for a tokenizer without), ``image_size`` (32),
``width`` (16), ``iters`` (700), ``batch_size`` (16), ``lr`` (2e-3), ``code_callbacks`` (none: callbacks that act on codes or
on settings of the quantizer), ``strategy`` (base). 32 pixels, three levels: 4 x 4 = 16
tokens an image.
"""

_kwargs_.setdefault('dataset', 'digits')
_kwargs_.setdefault('image_size', 32)
_kwargs_.setdefault('batch_size', 16)
_kwargs_.setdefault('val_batch_size', 60)
_kwargs_.setdefault('num_workers', 0)

width = _kwargs_.get('width', 16)
iters = _kwargs_.get('iters', 700)
quantizer = _kwargs_['quantizer']
codes = _kwargs_.get('codebook_size', 256)
code_callbacks = _kwargs_.get('code_callbacks', [])
# groups of several channels: 32 groups would be one channel each at these widths, which is slower (166 against 110 ms of
# CPU time a step) and reconstructs worse (29.5 against 31.0 dB), both seen on a part of train that was left out of training
shape = dict(width=width, multipliers=(1, 2, 2, 4), attention_levels=(), refine=False, norm_groups=4)

_base_ = ['../datasets/interface.py', '../strategies/interface.py']

_export_ = dict(
    trainer=dict(
        type='Trainer',
        iters=iters,
        model=dict(
            type='ImageTokenization',
            tokenizer=dict(
                type='VQGAN',
                encoder=dict(type='ConvEncoder', residual_blocks=1, out_channels=64, **shape),
                post_encode=dict(type='ConvConnector'),
                **({} if quantizer is None else dict(quantizer=quantizer)),
                pre_decode=dict(type='ConvConnector'),
                decoder=dict(type='ConvDecoder', residual_blocks=1, **shape),
            ),
            losses=dict(l2=dict(type='MSELoss')),
        ),
        optimizers=dict(tokenizer=dict(type='AdamW', lr=_kwargs_.get('lr', 2e-3), betas=(0.9, 0.99), weight_decay=1e-4)),
        callbacks=[
            *code_callbacks,
            dict(type='OptimizeCallback', clip=1.0, schedule=dict(type='CosineSchedule', warmup=50, final=0.02)),
            dict(type='EMACallback', decay=0.99),
            dict(type='LogCallback', interval=50),
            dict(type='ProgressCallback'),
            dict(type='GitCallback'),
            dict(type='ImageGridCallback', interval=350, count=10),
            dict(type='CodebookAlarmCallback', interval=100),
            dict(type='PreemptionCallback'),
            dict(type='EvalCallback', interval=350),
            dict(type='CheckpointCallback', interval=350, keep_last=2),
        ],
    ),
    validator=dict(
        type='Validator',
        metrics=dict(
            l1=dict(type='L1Metric'),
            mse=dict(type='MSEMetric'),
            psnr=dict(type='PSNRMetric'),
            ssim=dict(type='SSIMMetric'),
            codebook=dict(type='CodebookMetric', codebook_size=codes),
            window=dict(type='WindowedCodebookMetric', codebook_size=codes, window=1024),
        ),
    ),
    tiny=dict(
        trainer=dict(
            iters=8,
            model=dict(tokenizer=dict(encoder=dict(width=8, out_channels=16), decoder=dict(width=8))),
            callbacks=[
                *code_callbacks,
                dict(type='OptimizeCallback', clip=1.0, schedule=dict(type='CosineSchedule', warmup=2)),
                dict(type='EMACallback', decay=0.9),
                dict(type='LogCallback', interval=2),
                dict(type='ProgressCallback'),
                dict(type='GitCallback'),
                dict(type='ImageGridCallback', interval=4),
                dict(type='CodebookAlarmCallback', interval=4),
                dict(type='PreemptionCallback'),
                dict(type='EvalCallback', interval=8, limit=20),
                dict(type='CheckpointCallback', interval=4),
            ],
        ),
    ),
)
