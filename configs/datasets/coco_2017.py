"""COCO 2017: 118,287 images to train, 5,000 to validate, five captions each: docs/datasets.md."""

from vq.recipes import coco

_export_ = coco(_kwargs_, 2017)
