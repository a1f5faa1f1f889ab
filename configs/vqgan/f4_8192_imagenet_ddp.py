"""VQGAN on ImageNet with 4 x 4 pixels per token: 256 pixels, 64 x 64 tokens, 8,192 codes of 3 channels.

    auto_torchrun -m vq.train vqgan/f4_8192_imagenet_ddp configs/vqgan/f4_8192_imagenet_ddp.py
    auto_torchrun -m vq.val   vqgan/f4_8192_imagenet_ddp configs/vqgan/f4_8192_imagenet_ddp.py

The shape of latent diffusion's VQ-f4, whose features before the quantizer are what its denoiser of faces learns. Published
files are read by ``vq convert ldm_autoencoder FILE`` and ``vq convert taming FILE``.

Hardware and hours: not measured here, and published nowhere. Expected, quoted from the latent-diffusion README for its model
of this shape, trained on OpenImages: rFID 0.58. This config was never trained to its end.
"""

from vq.recipes import vqgan

_export_ = vqgan(_kwargs_, codebook_size=8192, embedding_dim=3, multipliers=(1, 2, 4))
