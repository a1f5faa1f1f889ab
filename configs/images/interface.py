"""Figures of existing images, such as samples of a generator. ``tools/fid.py`` composes this config.

auto_torchrun tools/fid.py imagenet_validation samples.npz
"""

from vq.recipes import image_figures

_export_ = image_figures(_kwargs_)
