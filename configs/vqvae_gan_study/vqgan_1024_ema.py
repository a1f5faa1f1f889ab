"""The study's VQGAN (adaptive weight, R1) with 1,024 codes that track the moving average (EMA) of their features.

    auto_torchrun -m vq.train vqvae_gan_study/vqgan_1024_ema configs/vqvae_gan_study/vqgan_1024_ema.py
    auto_torchrun -m vq.val   vqvae_gan_study/vqgan_1024_ema configs/vqvae_gan_study/vqgan_1024_ema.py

Hardware and hours, quoted: 10.082 hours of one A100 per epoch, so 1,512 for 150 epochs. Expected, quoted from row
ema_vqgan_cb1024_adaptive_R1 of its tables, on the ImageNet validation images: 99.51 % of the codes in use, perplexity 677.71,
MSE 0.0053 (of 0 to 1), SSIM 0.66, PSNR 22.74 dB, rFID 21.20; 64.4 M trainable parameters. Differences of ours:
vq/recipes/study.py. This config was never trained to its end.
"""

from vq.recipes import vqvae_gan_study

_export_ = vqvae_gan_study(_kwargs_, quantizer='ema', adversarial='adaptive', r1=10.0)
