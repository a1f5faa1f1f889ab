"""The study's VQGAN (adaptive weight, R1) with 1,024 codes and an entropy loss.

    auto_torchrun -m vq.train vqvae_gan_study/vqgan_1024_entropy configs/vqvae_gan_study/vqgan_1024_entropy.py
    auto_torchrun -m vq.val   vqvae_gan_study/vqgan_1024_entropy configs/vqvae_gan_study/vqgan_1024_entropy.py

Hardware and hours, quoted: 10.107 hours of one A100 per epoch, so 1,516 for 150 epochs. Expected, quoted from row
entropy_vqgan_cb1024_adaptive_R1 of its tables, on the ImageNet validation images: 80.85 % of the codes in use, perplexity
788.82, MSE 0.0056 (of 0 to 1), SSIM 0.64, PSNR 22.52 dB, rFID 26.20; 64.7 M trainable parameters. Differences of ours:
vq/recipes/study.py. This config was never trained to its end.
"""

from vq.recipes import vqvae_gan_study

_export_ = vqvae_gan_study(_kwargs_, quantizer='entropy', adversarial='adaptive', r1=10.0)
