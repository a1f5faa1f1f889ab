"""The feature network of figures on digits: the classifier of ic/digits.py, 64 features, 10 logits. For metrics of features.

Options: ``features_run`` (ic/digits): its run, a checkpoint of it, or a file. Train it once:

    auto_torchrun -m vq.train ic/digits configs/ic/digits.py
"""

from vq.core import PyConfig

_export_ = dict(
    type='ClassifierFeatures',
    classifier=PyConfig.load('../ic/digits.py')['trainer']['model'],
    weights=_kwargs_.get('features_run', 'ic/digits'),
    image_size=32,
)
