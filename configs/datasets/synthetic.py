"""Images of noise in memory, to measure a training without data: classes in turn. See docs/datasets.md."""

from vq.recipes import one_dataset

_export_ = one_dataset(_kwargs_, 'synthetic')
