"""Diffusion of pixels on ImageNet at 256 pixels, without a first stage: the choices of simple diffusion, on a DiT-L/8.

    auto_torchrun -m vq.train two_stage/pixel_sid_256_imagenet_ddp configs/two_stage/pixel_sid_256_imagenet_ddp.py

From the paper (Hoogeboom et al. 2023): the cosine schedule shifted towards noise by the size of the images, log SNR + 2 log(64
/ 256), and an estimate of v. The network is not that of the paper, a U-ViT: it is a DiT with patches of 8 x 8 pixels, so that
the 192 numbers of a patch meet 1,024 channels. Optimization is DiT's: AdamW 1e-4, 256 images a step, EMA 0.9999. Published for
the networks of the paper: FID 3.75 (U-ViT, L) and 3.71 (U-Net), as listed by Papers with Code; none is published for this
network. Hardware and hours: not measured. Never trained here.
"""

from vq.recipes import pixel_diffusion

_export_ = pixel_diffusion(_kwargs_)
