"""DINOv2 as a feature network of metrics, for FD-DINOv2: ViT-L/14 at 224 pixels.

python -m vq.tools.prepare_checkpoints dinov2-l
"""

from vq.recipes import dinov2

_export_ = dinov2(_kwargs_)
