"""A convolutional VQ autoencoder for photographs: 256 pixels, 16 x 16 tokens, an EMA codebook with restarts.

Reconstruction losses only: sharp pictures need the adversarial and perceptual losses of VQGAN.

Options: ``dataset`` (folder, imagenet, digits), ``data_root``, ``image_size`` (256), ``augmentation`` (strong),
``num_embeddings`` (1024), ``embedding_dim`` (256), ``width`` (128), ``strategy`` (ddp), ``precision`` (bf16),
``iters`` (260,000), ``batch_size`` (96 in total).
"""

_kwargs_.setdefault('image_size', 256)
_kwargs_.setdefault('augmentation', 'strong')
_kwargs_.setdefault('batch_size', 96)
_kwargs_.setdefault('batch_size_in_total', True)
_kwargs_.setdefault('num_workers', 5)
_kwargs_.setdefault('strategy', 'ddp')
_kwargs_.setdefault('precision', 'bf16')

codes, dim = _kwargs_.get('num_embeddings', 1024), _kwargs_.get('embedding_dim', 256)
shape = dict(width=_kwargs_.get('width', 128), multipliers=(1, 1, 2, 2, 4), attention_levels=(4,))

_base_ = ['../datasets/interface.py', '../strategies/interface.py']

_export_ = dict(
    trainer=dict(
        type='Trainer',
        iters=_kwargs_.get('iters', 260_000),
        model=dict(
            type='ImageTokenization',
            tokenizer=dict(
                type='VQGAN',
                encoder=dict(type='ConvEncoder', residual_blocks=2, out_channels=256, **shape),
                post_encode=dict(type='ConvConnector'),
                quantizer=dict(
                    type='VectorQuantizer',
                    codebook_size=codes,
                    embedding_dim=dim,
                    update=dict(type='EMAUpdate', decay=0.99, restart=dict()),
                ),
                pre_decode=dict(type='ConvConnector'),
                decoder=dict(type='ConvDecoder', residual_blocks=3, **shape),
            ),
            losses=dict(l1=dict(type='L1Loss')),
        ),
        optimizers=dict(tokenizer=dict(type='AdamW', lr=1e-4, betas=(0.9, 0.99), weight_decay=1e-4)),
        callbacks=[
            dict(type='OptimizeCallback', clip=1.0, schedule=dict(type='LinearSchedule', warmup=5000, final=0.1)),
            dict(type='EMACallback', decay=0.9999),
            dict(type='LogCallback', interval=50),
            dict(type='BackendsCallback', backends=[dict(type='TensorboardVisBackend')]),
            dict(type='ProgressCallback'),
            dict(type='GitCallback'),
            dict(type='ImageGridCallback', interval=1000),
            dict(type='CodebookAlarmCallback', interval=500),
            dict(type='PreemptionCallback'),
            dict(type='CheckpointCallback', interval=10_000, keep_last=3, keep_every=50_000),
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
        ),
        callbacks=[],
    ),
    tiny=dict(
        trainer=dict(
            iters=8,
            dataset=dict(_delete_=True, type='DigitsDataset', split='train', image_size=32),
            dataloader=dict(batch_size=8, num_workers=0),
            strategy=dict(_delete_=True, type='BaseStrategy'),
            model=dict(
                tokenizer=dict(
                    encoder=dict(width=8, out_channels=16),
                    quantizer=dict(codebook_size=64, embedding_dim=8),
                    decoder=dict(width=8),
                ),
            ),
            callbacks=[
                dict(type='OptimizeCallback', clip=1.0, schedule=dict(type='LinearSchedule', warmup=2)),
                dict(type='EMACallback', decay=0.9),
                dict(type='LogCallback', interval=2),
                dict(type='BackendsCallback', backends=[dict(type='LocalVisBackend')]),
                dict(type='ImageGridCallback', interval=4),
                dict(type='CodebookAlarmCallback', interval=4),
                dict(type='PreemptionCallback'),
                dict(type='CheckpointCallback', interval=4),
            ],
        ),
        validator=dict(
            dataset=dict(_delete_=True, type='DigitsDataset', split='validation', image_size=32),
            dataloader=dict(batch_size=60, num_workers=0),
            metrics=dict(codebook=dict(codebook_size=64)),
            callbacks=[dict(type='ReconstructionsCallback')],
        ),
    ),
)
