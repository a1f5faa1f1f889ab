"""The Gumbel VQGAN of the study's later recipe: twice the width, more weight on LPIPS, a discriminator from epoch 100 on.

    auto_torchrun -m vq.train vqvae_gan_study/vqgan_1024_gumbel_later configs/vqvae_gan_study/vqgan_1024_gumbel_later.py
    auto_torchrun -m vq.val   vqvae_gan_study/vqgan_1024_gumbel_later configs/vqvae_gan_study/vqgan_1024_gumbel_later.py

Hardware and hours: not measured here, and published nowhere. Expected, quoted from the later README of the project, on the
ImageNet validation images: 99.61 % of the codes in use, perplexity 892.00, MSE 0.0075 (of 0 to 1), SSIM 0.61, PSNR 21.23 dB,
rFID 6.30; 72.5 M trainable parameters. Differences of ours: vq/recipes/study.py. This config was never trained to its
end.
"""

from vq.recipes import vqvae_gan_study

_export_ = vqvae_gan_study(_kwargs_, recipe='later', quantizer='gumbel', adversarial='adaptive', r1=10.0)
