"""Faces at 256 pixels: those of CelebA-HQ and of FFHQ, below data/: docs/datasets.md."""

from vq.recipes import hq_faces

_export_ = hq_faces(_kwargs_)
