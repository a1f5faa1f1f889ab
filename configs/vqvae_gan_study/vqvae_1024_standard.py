"""The study's plain VQ-VAE with 1,024 codes: L2 alone. The baseline of the study's GAN ablation.

    auto_torchrun -m vq.train vqvae_gan_study/vqvae_1024_standard configs/vqvae_gan_study/vqvae_1024_standard.py
    auto_torchrun -m vq.val   vqvae_gan_study/vqvae_1024_standard configs/vqvae_gan_study/vqvae_1024_standard.py

Hardware and hours, quoted: 2.108 hours of one A100 per epoch, so 316 for 150 epochs. Expected, quoted from row
standard_vqvae_cb1024 of its tables, on the ImageNet validation images: 99.71 % of the codes in use, perplexity 733.32, MSE
0.0044 (of 0 to 1), SSIM 0.69, PSNR 23.53 dB, rFID 52.06; 35.8 M trainable parameters. Differences of ours:
vq/recipes/study.py. This config was never trained to its end.
"""

from vq.recipes import vqvae_gan_study

_export_ = vqvae_gan_study(_kwargs_)
