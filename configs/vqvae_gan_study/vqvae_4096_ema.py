"""The study's VQ-VAE with 4,096 codes that track the moving average (EMA) of their features.

    auto_torchrun -m vq.train vqvae_gan_study/vqvae_4096_ema configs/vqvae_gan_study/vqvae_4096_ema.py
    auto_torchrun -m vq.val   vqvae_gan_study/vqvae_4096_ema configs/vqvae_gan_study/vqvae_4096_ema.py

Hardware and hours, quoted: 2.118 hours of one A100 per epoch, so 318 for 150 epochs. Expected, quoted from row
ema_vqvae_cb4096 of its tables, on the ImageNet validation images: 75.09 % of the codes in use, perplexity 1,693.17, MSE 0.0040
(of 0 to 1), SSIM 0.70, PSNR 23.97 dB, rFID 48.06; 35.6 M trainable parameters. Differences of ours: vq/recipes/study.py.
This config was never trained to its end.
"""

from vq.recipes import vqvae_gan_study

_export_ = vqvae_gan_study(_kwargs_, codebook_size=4096, quantizer='ema')
