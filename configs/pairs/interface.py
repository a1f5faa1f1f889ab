"""How close the images of two folders are, matched by name. ``tools/pairs.py`` composes this config.

auto_torchrun tools/pairs.py originals reconstructions
"""

from vq.recipes import image_pairs

_export_ = image_pairs(_kwargs_)
