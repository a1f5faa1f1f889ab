"""The feature network of metrics on digits, such as FID: the classifier of ic/digits.py, 64 features, 10 logits.

Train it once:

    auto_torchrun -m vq.train ic/digits configs/ic/digits.py
"""

from vq.recipes import digits_features

_export_ = digits_features(_kwargs_)
