"""A teacher as a feature network of metrics, by its name in vq/recipes/teachers.py: the pooled vector of images.

    python -m vq.fid imagenet --config-options network::configs/models/teacher.py network.teacher::dino

Figures of different networks cannot be compared. For FD-DINOv2 and CMMD take dinov2.py and clip.py beside this file.
"""

from vq.recipes.teachers import teacher_images

_export_ = teacher_images(_kwargs_)
