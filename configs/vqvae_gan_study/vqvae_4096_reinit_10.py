"""The study's plain VQ-VAE with 4,096 codes. Unused codes are reinitialized every 10 epochs.

    auto_torchrun -m vq.train vqvae_gan_study/vqvae_4096_reinit_10 configs/vqvae_gan_study/vqvae_4096_reinit_10.py
    auto_torchrun -m vq.val   vqvae_gan_study/vqvae_4096_reinit_10 configs/vqvae_gan_study/vqvae_4096_reinit_10.py

Hardware and hours, quoted: 2.110 hours of one A100 per epoch, so 316 for 150 epochs. Expected, quoted from row
standard_vqvae_cb4096_reinit10like of its tables, on the ImageNet validation images: 88.45 % of the codes in use, perplexity
2,538.91, MSE 0.0039 (of 0 to 1), SSIM 0.70, PSNR 24.06 dB, rFID 47.06; 36.6 M trainable parameters. Differences of ours:
vq/recipes/study.py. This config was never trained to its end.
"""

from vq.recipes import vqvae_gan_study

_export_ = vqvae_gan_study(_kwargs_, codebook_size=4096, reinit=10)
