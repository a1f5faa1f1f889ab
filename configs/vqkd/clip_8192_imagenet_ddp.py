"""VQ-KD with CLIP ViT-B/16 as teacher: 8,192 codes of 32 channels, on ImageNet at 224 pixels, 14 x 14 tokens.

    auto_torchrun -m vq.train vqkd/clip_8192_imagenet_ddp configs/vqkd/clip_8192_imagenet_ddp.py
    auto_torchrun -m vq.val   vqkd/clip_8192_imagenet_ddp configs/vqkd/clip_8192_imagenet_ddp.py

The feature decoder predicts CLIP's projected patches, 512 channels. 250,000 steps of 512 images are 100 epochs. Hardware and
hours: not measured here, and published nowhere for this recipe. Expected figures: for BEiT v2's published tokenizer of this
kind, the toolkit this one re-implements reports a cosine loss of 0.164, all codes in use, and a codebook entropy of 8.95 nats
on the validation images. Never trained to its end here.
"""

from vq.recipes import vqkd

_export_ = vqkd(_kwargs_, teacher='clip')
