"""MNIST, or Fashion-MNIST and KMNIST with their data_root: 60,000 images to train, 10,000 to validate, 10 classes."""

from vq.recipes import one_dataset

_export_ = one_dataset(_kwargs_, 'mnist')
