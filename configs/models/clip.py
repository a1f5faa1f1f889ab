"""CLIP's image encoder as a network of features, for CMMD: ViT-L/14 at 336 pixels. For metrics of features.

python tools/prepare_checkpoints.py clip-l-336
"""

from vq.recipes import clip

_export_ = clip(_kwargs_)
