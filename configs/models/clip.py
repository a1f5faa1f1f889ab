"""CLIP's image encoder as a feature network of metrics, for CMMD: ViT-L/14 at 336 pixels.

python -m vq.tools.prepare_checkpoints clip-l-336
"""

from vq.recipes import clip

_export_ = clip(_kwargs_)
