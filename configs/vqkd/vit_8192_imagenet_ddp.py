"""VQ-KD with a supervised ViT-B/16 as teacher: 8,192 codes of 32 channels, on ImageNet at 224 pixels, 14 x 14 tokens.

    auto_torchrun -m vq.train vqkd/vit_8192_imagenet_ddp configs/vqkd/vit_8192_imagenet_ddp.py
    auto_torchrun -m vq.val   vqkd/vit_8192_imagenet_ddp configs/vqkd/vit_8192_imagenet_ddp.py

The feature decoder predicts its last patches, 768 channels (torchvision's classifier). 250,000 steps of 512 images are 100
epochs. Hardware and hours: not measured here, and published nowhere for this recipe. Expected figures: none are published for
this teacher. All codes should stay in use. Never trained to its end here.
"""

from vq.recipes import vqkd

_export_ = vqkd(_kwargs_, teacher='vit')
