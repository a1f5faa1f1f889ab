"""FFHQ at 256 pixels: 70,000 faces, as data/ffhq-256/{train,val}: docs/datasets.md."""

from vq.recipes import one_dataset

_export_ = one_dataset(_kwargs_, 'ffhq')
