"""Visual Genome: images with the boxes of up to 10 objects, and the names of their classes as text: docs/datasets.md."""

from vq.recipes import one_dataset

_export_ = one_dataset(_kwargs_, 'visual_genome')
