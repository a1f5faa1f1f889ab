"""Your own images: a folder with train/ and validation/ (or val/), class folders below them or not."""

from vq.recipes import one_dataset

_export_ = one_dataset(_kwargs_, 'folder')
