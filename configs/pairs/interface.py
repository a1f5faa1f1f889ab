"""How close the images of two folders are, matched by name. ``vq.tools.pairs`` composes this config.

auto_torchrun -m vq.tools.pairs originals reconstructions
"""

from vq.recipes import image_pairs

_export_ = image_pairs(_kwargs_)
