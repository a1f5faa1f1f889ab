"""The entropy VQGAN of the study's later recipe: twice the width, more weight on LPIPS, a discriminator from epoch 100 on.

    auto_torchrun -m vq.train vqvae_gan_study/vqgan_1024_entropy_later configs/vqvae_gan_study/vqgan_1024_entropy_later.py
    auto_torchrun -m vq.val   vqvae_gan_study/vqgan_1024_entropy_later configs/vqvae_gan_study/vqgan_1024_entropy_later.py

Hardware and hours: not measured here, and published nowhere. Expected, quoted from the later README of the project, on the
ImageNet validation images: 99.70 % of the codes in use, perplexity 896.78, MSE 0.0082 (of 0 to 1), SSIM 0.62, PSNR 20.82 dB,
rFID 6.17; 71.1 M trainable parameters. Differences of ours: vq/recipes/study.py. This config was never trained to its
end.
"""

from vq.recipes import vqvae_gan_study

_export_ = vqvae_gan_study(_kwargs_, recipe='later', quantizer='entropy', adversarial='adaptive', r1=10.0)
