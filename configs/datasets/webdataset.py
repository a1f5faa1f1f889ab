"""WebDataset tars, in train/ and validation/, or with a part of the samples held out. See docs/datasets.md."""

from vq.recipes import one_dataset

_export_ = one_dataset(_kwargs_, 'webdataset')
