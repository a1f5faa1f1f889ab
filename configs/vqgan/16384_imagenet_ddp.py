"""VQGAN on ImageNet, 256 pixels, 16 x 16 tokens, 16,384 codes of 256 channels.

    auto_torchrun -m vq.train vqgan/16384_imagenet_ddp configs/vqgan/16384_imagenet_ddp.py
    auto_torchrun -m vq.val   vqgan/16384_imagenet_ddp configs/vqgan/16384_imagenet_ddp.py

Hardware and hours: not measured here, and published nowhere. Expected, quoted for the published model of this size: rFID 4.98
on the 50,000 validation images, 7.41 against the training set (taming-transformers README); and, as measured by the toolkit
this one re-implements: LPIPS 0.2832, L1 0.0681, MSE 0.01318 (of 0 to 1), PSNR 19.97 dB, SSIM 0.5023, 5.93 % of the codes in
use. The published weights themselves: python -m vq.tools.prepare_checkpoints taming-f16-16384
"""

from vq.recipes import vqgan

_export_ = vqgan(_kwargs_, codebook_size=16384)
