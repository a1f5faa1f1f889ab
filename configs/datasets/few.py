"""A few images again and again, to see whether a model can learn them by heart. Options: of (digits), count (16), times (64).

dataset::few of::imagenet count:8
"""

from vq.recipes import few_images

_export_ = few_images(_kwargs_)
