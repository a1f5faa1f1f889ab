"""Statistics of a dataset, for FID and its relatives: what ``vq.fid`` composes.

auto_torchrun -m vq.fid digits
"""

from vq.recipes import dataset_statistics

_export_ = dataset_statistics(_kwargs_)
