"""Figures of images that are there already, such as samples of a generator: what ``tools/fid.py`` composes.

    auto_torchrun tools/fid.py imagenet_validation samples.npz

Options: ``images`` (a folder, or an .npz file of samples), ``figures`` (of FeatureMetric), ``reference`` (the name or file of
statistics), ``reference_images`` (a folder or an .npz file whose images are the reference; ``reference`` is then the file that
their statistics go to), ``reference_dataset`` (a dataset config in their place, with ``train`` for its training split and
options of its own), ``batch_size`` (64), ``num_workers`` (4; of files of samples 0), ``strategy``.
"""

from vq.core import PyConfig

images = str(_kwargs_.get('images', 'samples.npz'))
others = _kwargs_.get('reference_images')
dataset = _kwargs_.get('reference_dataset')
in_files = images.endswith('.npz') and (others is None or str(others).endswith('.npz')) and dataset in (None, 'digits')
figures = tuple(_kwargs_.get('figures', ('fid', 'inception_score')))
compares = set(figures) != {'inception_score'}

if dataset is not None:
    _found = PyConfig.load('datasets/interface.py', **{**_kwargs_, 'dataset': dataset}).validator.dataset
    reference = dict(_found, split='train') if _kwargs_.get('train') else _found
elif others is not None:
    reference = dict(type='ImagesDataset', source=str(others))
else:
    reference = None

_base_ = ['../strategies/interface.py']

_export_ = dict(
    validator=dict(
        type='ImagesValidator',
        dataset=dict(type='ImagesDataset', source=images),
        dataloader=dict(
            batch_size=_kwargs_.get('batch_size', 64), num_workers=_kwargs_.get('num_workers', 0 if in_files else 4)
        ),
        metrics=dict(
            features=dict(
                type='FeatureMetric',
                network=dict(type='FIDInception'),
                figures=figures,
                images='input',
                reference=_kwargs_.get('reference', 'imagenet_validation') if compares else None,
            ),
        ),
        **({} if reference is None or not compares else dict(reference=reference)),
    ),
    tiny=dict(validator=dict(dataloader=dict(num_workers=0))),
)
