"""What runners of photographic tokenizers share: logs, pictures, checkpoints, metrics, and how they look when tiny.

Options: ``iters`` (260,000), ``optimize`` (OptimizeCallbacks of the run), ``anneal`` (callbacks that change settings on the
way), ``ema`` (decay of the moving average, None: no average), ``num_embeddings`` (8192).
"""

iters = _kwargs_.get('iters', 260_000)
optimize = _kwargs_.get('optimize', [dict(type='OptimizeCallback')])
anneal = _kwargs_.get('anneal', [])
ema = _kwargs_.get('ema')


def callbacks(decay, log, grid, alarm, backend, checkpoint):
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
        dict(type='CheckpointCallback', **checkpoint),
    ]


_export_ = dict(
    trainer=dict(
        type='Trainer',
        iters=iters,
        callbacks=callbacks(
            ema, 50, 1000, 500, 'TensorboardVisBackend', dict(interval=10_000, keep_last=3, keep_every=50_000)
        ),
    ),
    validator=dict(
        type='Validator',
        metrics=dict(
            l1=dict(type='L1Metric'),
            mse=dict(type='MSEMetric'),
            psnr=dict(type='PSNRMetric'),
            ssim=dict(type='SSIMMetric'),
            codebook=dict(type='CodebookMetric', codebook_size=_kwargs_.get('num_embeddings', 8192)),
        ),
        callbacks=[],
    ),
    tiny=dict(
        trainer=dict(
            iters=8,
            dataset=dict(_delete_=True, type='DigitsDataset', split='train', image_size=32),
            dataloader=dict(batch_size=8, num_workers=0),
            strategy=dict(_delete_=True, type='BaseStrategy'),
            callbacks=callbacks(None if ema is None else 0.9, 2, 4, 4, 'LocalVisBackend', dict(interval=4)),
        ),
        validator=dict(
            dataset=dict(_delete_=True, type='DigitsDataset', split='validation', image_size=32),
            dataloader=dict(batch_size=60, num_workers=0),
            callbacks=[dict(type='ReconstructionsCallback')],
        ),
    ),
)
