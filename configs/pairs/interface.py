"""How close the images of two folders are, matched by name: what ``tools/pairs.py`` composes.

    auto_torchrun tools/pairs.py originals reconstructions

Options: ``first``, ``second`` (folders, or .npz files of samples), ``common`` (False: a name that one side lacks is an error),
``lpips`` (vgg; or alex, squeeze, None), ``batch_size`` (32), ``num_workers`` (4), ``strategy``.
"""

lpips = _kwargs_.get('lpips', 'vgg')

_base_ = ['../strategies/interface.py']

_export_ = dict(
    validator=dict(
        type='ImagesValidator',
        dataset=dict(
            type='PairsDataset',
            first=str(_kwargs_.get('first', 'originals')),
            second=str(_kwargs_.get('second', 'reconstructions')),
            common=_kwargs_.get('common', False),
        ),
        dataloader=dict(batch_size=_kwargs_.get('batch_size', 32), num_workers=_kwargs_.get('num_workers', 4)),
        metrics=dict(
            psnr=dict(type='PSNRMetric'),
            ssim=dict(type='SSIMMetric'),
            ssim_uniform=dict(type='UniformSSIMMetric'),
            l1=dict(type='L1Metric'),
            mse=dict(type='MSEMetric'),
            **({} if lpips is None else dict(lpips=dict(type='LPIPSMetric', net=lpips))),
        ),
    ),
    tiny=dict(validator=dict(dataloader=dict(num_workers=0))),
)
