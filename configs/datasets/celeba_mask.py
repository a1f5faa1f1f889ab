"""CelebAMask-HQ: 30,000 faces, each with a map of 19 parts in mask: docs/datasets.md."""

from vq.recipes import one_dataset

_export_ = one_dataset(_kwargs_, 'celeba_mask')
