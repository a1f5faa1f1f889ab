"""The study's VQGAN with 1,024 codes; the adversarial term has the fixed weight 0.1.

    auto_torchrun -m vq.train vqvae_gan_study/vqgan_1024_fixed configs/vqvae_gan_study/vqgan_1024_fixed.py
    auto_torchrun -m vq.val   vqvae_gan_study/vqgan_1024_fixed configs/vqvae_gan_study/vqgan_1024_fixed.py

Hardware and hours, quoted: 8.002 hours of one A100 per epoch, so 1,200 for 150 epochs. Expected, quoted from row
standard_vqgan_cb1024_fixed of its tables, on the ImageNet validation images: 99.71 % of the codes in use, perplexity 738.57,
MSE 0.0068 (of 0 to 1), SSIM 0.60, PSNR 21.68 dB, rFID 28.87; 64.7 M trainable parameters. Differences of ours:
vq/recipes/study.py. This config was never trained to its end.
"""

from vq.recipes import vqvae_gan_study

_export_ = vqvae_gan_study(_kwargs_, adversarial='fixed')
