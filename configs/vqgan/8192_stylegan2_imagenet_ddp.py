"""VQGAN with 8,192 codes and the residual discriminator of StyleGAN2 in place of the PatchGAN, on ImageNet.

    auto_torchrun -m vq.train vqgan/8192_stylegan2_imagenet_ddp configs/vqgan/8192_stylegan2_imagenet_ddp.py
    auto_torchrun -m vq.val   vqgan/8192_stylegan2_imagenet_ddp configs/vqgan/8192_stylegan2_imagenet_ddp.py

Hinge losses as in VQGAN. `--config-options penalties:dict(r1=dict(type='R1Penalty'))` adds a lazy R1 penalty.
Hardware and hours: not measured here, and published nowhere. Expected figures: none are published for this recipe; the
VQ-VAE/GAN study with this discriminator quotes rFID 20.95 for 1,024 codes after shorter training. Never trained to its end.
"""

from vq.recipes import vqgan

_export_ = vqgan(_kwargs_, codebook_size=8192, discriminator=dict(type='StyleGAN2Discriminator'))
