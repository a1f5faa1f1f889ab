"""Statistics of a dataset, for FID and its relatives: what ``vq.fid`` composes.

    auto_torchrun -m vq.fid digits

Options: ``dataset`` (digits, imagenet, folder, a config of your own), ``train`` (False: its training split, as validation sees
it), ``features`` (False: keep the rows as well), ``network`` (FID's Inception; models/clip.py, models/dinov2.py or a config of
your own), those of the dataset, and ``strategy``.
"""

from vq.core import PyConfig

_kwargs_.setdefault('val_batch_size', 64)

_base_ = ['../datasets/interface.py', '../strategies/interface.py']

_export_ = dict(
    validator=dict(
        type='StatisticsWriter',
        network=PyConfig.load(_kwargs_['network']) if 'network' in _kwargs_ else dict(type='FIDInception'),
        features=_kwargs_.get('features', False),
        **(dict(dataset=dict(split='train')) if _kwargs_.get('train') else {}),
    ),
    tiny=dict(
        validator=dict(dataset=dict(_delete_=True, type='DigitsDataset', split='validation', image_size=32)),
    ),
)
