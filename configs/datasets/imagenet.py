"""ImageNet-1k: 1,281,167 images to train, 50,000 to validate, 1,000 classes, in either layout of ImageNetDataset."""

from vq.recipes import one_dataset

_export_ = one_dataset(_kwargs_, 'imagenet')
