"""Figures of images that are there already, such as samples of a generator: what ``tools/fid.py`` composes.

auto_torchrun tools/fid.py imagenet_validation samples.npz
"""

from vq.recipes import image_figures

_export_ = image_figures(_kwargs_)
