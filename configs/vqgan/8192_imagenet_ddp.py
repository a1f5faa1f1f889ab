"""VQGAN on ImageNet, 256 pixels, 16 x 16 tokens, 8,192 codes of 256 channels.

    auto_torchrun -m vq.train vqgan/8192_imagenet_ddp configs/vqgan/8192_imagenet_ddp.py
    auto_torchrun -m vq.val   vqgan/8192_imagenet_ddp configs/vqgan/8192_imagenet_ddp.py

Hardware and hours: not measured here, and published nowhere. Expected figures: none are published for this size; the
taming-transformers README quotes rFID 7.94 for 1,024 and 4.98 for 16,384 codes on the validation images. Codebooks of 256
channels collapse: the published model of 16,384 codes uses 5.9 % of them (measured by the toolkit this one re-implements).
"""

from vq.recipes import vqgan

_export_ = vqgan(_kwargs_, codebook_size=8192)
