"""ImageNet-1k from ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar, which are not unpacked. See docs/datasets.md."""

from vq.recipes import one_dataset

_export_ = one_dataset(_kwargs_, 'imagenet_tar')
