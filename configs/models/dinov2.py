"""DINOv2 as a network of features, for FD-DINOv2: ViT-L/14 at 224 pixels. For metrics of features.

python tools/prepare_checkpoints.py dinov2-l
"""

from vq.recipes import dinov2

_export_ = dinov2(_kwargs_)
