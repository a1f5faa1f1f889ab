"""Statistics of a dataset, for FID and related figures. ``vq.fid`` composes this config.

auto_torchrun -m vq.fid digits
"""

from vq.recipes import dataset_statistics

_export_ = dataset_statistics(_kwargs_)
