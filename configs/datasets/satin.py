"""SATIN, satellite images: 19 datasets, of each of which every n-th image is held out, 10 %. See docs/datasets.md."""

from vq.recipes import one_dataset

_export_ = one_dataset(_kwargs_, 'satin')
