"""LAION-Aesthetics, of which the last 25,000 images are held out. See docs/datasets.md."""

from vq.recipes import one_dataset

_export_ = one_dataset(_kwargs_, 'laion_aesthetics')
