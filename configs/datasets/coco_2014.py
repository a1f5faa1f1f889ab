"""COCO 2014: 82,783 images to train, 40,504 to validate, five captions each: docs/datasets.md."""

from vq.recipes import coco

_export_ = coco(_kwargs_, 2014)
