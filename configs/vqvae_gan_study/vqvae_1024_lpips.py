"""The study's VQ-VAE with 1,024 codes and LPIPS, without a discriminator.

    auto_torchrun -m vq.train vqvae_gan_study/vqvae_1024_lpips configs/vqvae_gan_study/vqvae_1024_lpips.py
    auto_torchrun -m vq.val   vqvae_gan_study/vqvae_1024_lpips configs/vqvae_gan_study/vqvae_1024_lpips.py

Hardware and hours, quoted: 2.200 hours of one A100 per epoch, so 330 for 150 epochs. Expected, quoted from row
standard_vqgan_cb1024_noDisc of its tables, on the ImageNet validation images: 99.71 % of the codes in use, perplexity 754.93,
MSE 0.0047 (of 0 to 1), SSIM 0.67, PSNR 23.28 dB, rFID 30.84; 35.8 M trainable parameters. Differences of ours:
vq/recipes/study.py. This config was never trained to its end.
"""

from vq.recipes import vqvae_gan_study

_export_ = vqvae_gan_study(_kwargs_, perceptual=True)
