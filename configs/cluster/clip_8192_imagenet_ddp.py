"""Cluster on CLIP ViT-B/16: 8,192 codes in the space of its last features, on ImageNet at 256 pixels, 16 x 16 tokens.

    auto_torchrun -m vq.train cluster/clip_8192_imagenet_ddp configs/cluster/clip_8192_imagenet_ddp.py
    auto_torchrun -m vq.val   cluster/clip_8192_imagenet_ddp configs/cluster/clip_8192_imagenet_ddp.py

Codes have 768 channels: CLIP's, before its projection. 100,000 steps of 256 images. Hardware and hours: not measured here, and
published nowhere for this recipe. Expected figures: none are published for the tokenizer alone. All codes should stay in use.
Never trained to its end here.
"""

from vq.recipes import cluster

_export_ = cluster(_kwargs_, teacher='clip')
