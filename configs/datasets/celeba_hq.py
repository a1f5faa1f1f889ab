"""CelebA-HQ at 256 pixels: 30,000 faces, as data/celeba-hq-256/{train,val}: docs/datasets.md."""

from vq.recipes import one_dataset

_export_ = one_dataset(_kwargs_, 'celeba_hq')
