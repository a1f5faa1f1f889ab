"""SA-Med2D-20M: medical images, of which every n-th is held out, 25,000 in all. See docs/datasets.md."""

from vq.recipes import one_dataset

_export_ = one_dataset(_kwargs_, 'sa_med2d_20m')
