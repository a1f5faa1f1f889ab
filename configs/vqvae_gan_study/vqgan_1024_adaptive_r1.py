"""The study's VQGAN with 1,024 codes, an adaptive weight, and R1 on the discriminator: the best rFID of its tables.

    auto_torchrun -m vq.train vqvae_gan_study/vqgan_1024_adaptive_r1 configs/vqvae_gan_study/vqgan_1024_adaptive_r1.py
    auto_torchrun -m vq.val   vqvae_gan_study/vqgan_1024_adaptive_r1 configs/vqvae_gan_study/vqgan_1024_adaptive_r1.py

Hardware and hours, quoted: 10.223 hours of one A100 per epoch, so 1,533 for 150 epochs. Expected, quoted from row
standard_vqgan_cb1024_adaptive_R1 of its tables, on the ImageNet validation images: 92.67 % of the codes in use, perplexity
720.19, MSE 0.0053 (of 0 to 1), SSIM 0.66, PSNR 22.75 dB, rFID 20.95; 64.7 M trainable parameters. Differences of ours:
vq/recipes/study.py. This config was never trained to its end.
"""

from vq.recipes import vqvae_gan_study

_export_ = vqvae_gan_study(_kwargs_, adversarial='adaptive', r1=10.0)
