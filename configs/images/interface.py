"""Figures of existing images, such as samples of a generator. ``vq.tools.fid`` composes this config.

auto_torchrun -m vq.tools.fid imagenet_validation samples.npz
"""

from vq.recipes import image_figures

_export_ = image_figures(_kwargs_)
