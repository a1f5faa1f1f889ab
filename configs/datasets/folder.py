"""Your own images: a folder with train/ and validation/ (or val/), with or without class folders below them."""

from vq.recipes import one_dataset

_export_ = one_dataset(_kwargs_, 'folder')
