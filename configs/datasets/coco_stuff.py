"""COCO 2017 with the boxes of 3 to 100 objects, things and stuff, captions, and maps if asked for: docs/datasets.md."""

from vq.recipes import coco_stuff

_export_ = coco_stuff(_kwargs_)
