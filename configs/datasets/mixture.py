"""Several datasets in proportion to weights; validation on all of them. Option: weights ({'digits': 1}).

dataset::mixture weights:{'imagenet':3,'ffhq':1}
"""

from vq.recipes import mixture

_export_ = mixture(_kwargs_)
