"""The study's plain VQ-VAE with 4,096 codes: L2 alone, codes trained by gradient. A baseline that loses half of its codes.

    auto_torchrun -m vq.train vqvae_gan_study/vqvae_4096_standard configs/vqvae_gan_study/vqvae_4096_standard.py
    auto_torchrun -m vq.val   vqvae_gan_study/vqvae_4096_standard configs/vqvae_gan_study/vqvae_4096_standard.py

Hardware and hours, quoted: 2.105 hours of one A100 per epoch, so 316 for 150 epochs. Expected, quoted from row
standard_vqvae_cb4096 of its tables, on the ImageNet validation images: 47.14 % of the codes in use, perplexity 1,328.33, MSE
0.0042 (of 0 to 1), SSIM 0.69, PSNR 23.77 dB, rFID 50.12; 36.6 M trainable parameters. Differences of ours:
vq/recipes/study.py. This config was never trained to its end.
"""

from vq.recipes import vqvae_gan_study

_export_ = vqvae_gan_study(_kwargs_, codebook_size=4096)
