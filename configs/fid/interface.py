"""Statistics of a dataset, for FID and its relatives: what ``vq.fid`` composes.

    auto_torchrun -m vq.fid digits

Options: ``dataset`` (digits, imagenet, folder, a config of your own), ``train`` (False: its training split, as validation sees
it), ``features`` (False: keep the rows as well), those of the dataset, and ``strategy``.
"""

_kwargs_.setdefault('val_batch_size', 64)

_base_ = ['../datasets/interface.py', '../strategies/interface.py']

_export_ = dict(
    validator=dict(
        type='StatisticsWriter',
        network=dict(type='FIDInception'),
        features=_kwargs_.get('features', False),
        **(dict(dataset=dict(split='train')) if _kwargs_.get('train') else {}),
    ),
    tiny=dict(
        validator=dict(dataset=dict(_delete_=True, type='DigitsDataset', split='validation', image_size=32)),
    ),
)
