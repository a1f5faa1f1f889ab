"""The 1,797 handwritten digits of scikit-learn, enlarged to image_size: 1,437 to train, 180 to validate."""

from vq.recipes import one_dataset

_export_ = one_dataset(_kwargs_, 'digits')
