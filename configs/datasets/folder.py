"""Your own images: a folder with train/ and validation/ (or val/), or without both; with or without class folders."""

from vq.recipes import one_dataset

_export_ = one_dataset(_kwargs_, 'folder')
