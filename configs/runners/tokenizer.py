"""What runners of photographic tokenizers share: logs, pictures, checkpoints, metrics, and how they look when tiny.

Options: ``iters`` (260,000), ``optimize`` (OptimizeCallbacks of the run), ``anneal`` (callbacks that change settings on the
way), ``ema`` (decay of the moving average, None: no average), ``evaluate`` (10,000: steps between evaluations during training,
None: none), ``num_embeddings`` (8192), ``reference`` (of FID: the name of cached statistics; None: the images themselves).
"""

iters = _kwargs_.get('iters', 260_000)
optimize = _kwargs_.get('optimize', [dict(type='OptimizeCallback')])
anneal = _kwargs_.get('anneal', [])
ema = _kwargs_.get('ema')
codes = _kwargs_.get('num_embeddings', 8192)
evaluate = _kwargs_.get('evaluate', 10_000)


def callbacks(decay, log, grid, alarm, backend, evaluation, checkpoint):
    return [
        *anneal,
        *optimize,
        *([] if decay is None else [dict(type='EMACallback', decay=decay)]),
        dict(type='LogCallback', interval=log),
        dict(type='BackendsCallback', backends=[dict(type=backend)]),
        dict(type='ProgressCallback'),
        dict(type='GitCallback'),
        dict(type='ImageGridCallback', interval=grid),
        dict(type='CodebookAlarmCallback', interval=alarm),
        dict(type='PreemptionCallback'),
        *([] if evaluate is None else [dict(type='EvalCallback', **evaluation)]),
        dict(type='CheckpointCallback', **checkpoint),
    ]


_export_ = dict(
    trainer=dict(
        type='Trainer',
        iters=iters,
        callbacks=callbacks(
            ema,
            50,
            1000,
            500,
            'TensorboardVisBackend',
            dict(interval=evaluate, limit=10_000),
            dict(interval=10_000, keep_last=3, keep_every=50_000),
        ),
    ),
    validator=dict(
        type='Validator',
        metrics=dict(
            l1=dict(type='L1Metric'),
            l2=dict(type='L2Metric'),
            mse=dict(type='MSEMetric'),
            psnr=dict(type='PSNRMetric'),
            ssim=dict(type='SSIMMetric'),
            ssim_uniform=dict(type='UniformSSIMMetric'),
            lpips=dict(type='LPIPSMetric', net='vgg'),
            features=dict(
                type='FeatureMetric',
                network=dict(type='FIDInception'),
                figures=('fid', 'sfid', 'inception_score'),
                reference=_kwargs_.get('reference'),
            ),
            codebook=dict(type='CodebookMetric', codebook_size=codes),
            window=dict(type='WindowedCodebookMetric', codebook_size=codes),
        ),
        callbacks=[],
    ),
    tiny=dict(
        trainer=dict(
            iters=8,
            dataset=dict(_delete_=True, type='DigitsDataset', split='train', image_size=32),
            dataloader=dict(batch_size=8, num_workers=0),
            strategy=dict(_delete_=True, type='BaseStrategy'),
            callbacks=callbacks(
                None if ema is None else 0.9, 2, 4, 4, 'LocalVisBackend', dict(interval=8, limit=20), dict(interval=4)
            ),
        ),
        validator=dict(
            dataset=dict(_delete_=True, type='DigitsDataset', split='validation', image_size=32),
            dataloader=dict(batch_size=60, num_workers=0),
            # networks of metrics take longer than all else of a tiny form; digits/vqgan.py and configs/fid run them
            metrics=dict(features=None, lpips=None, window=None),
            callbacks=[dict(type='ReconstructionsCallback')],
        ),
    ),
)
