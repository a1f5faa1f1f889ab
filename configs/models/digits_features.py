"""The feature network of figures on digits: the classifier of ic/digits.py, 64 features, 10 logits. For metrics of features.

Train it once:

    auto_torchrun -m vq.train ic/digits configs/ic/digits.py
"""

from vq.recipes import digits_features

_export_ = digits_features(_kwargs_)
