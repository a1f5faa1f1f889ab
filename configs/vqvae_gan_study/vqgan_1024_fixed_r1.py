"""The study's VQGAN with 1,024 codes, a fixed weight, and R1 on the discriminator.

    auto_torchrun -m vq.train vqvae_gan_study/vqgan_1024_fixed_r1 configs/vqvae_gan_study/vqgan_1024_fixed_r1.py
    auto_torchrun -m vq.val   vqvae_gan_study/vqgan_1024_fixed_r1 configs/vqvae_gan_study/vqgan_1024_fixed_r1.py

Hardware and hours, quoted: 8.952 hours of one A100 per epoch, so 1,343 for 150 epochs. Expected, quoted from row
standard_vqgan_cb1024_fixed_R1 of its tables, on the ImageNet validation images: 100.00 % of the codes in use, perplexity
737.21, MSE 0.0067 (of 0 to 1), SSIM 0.61, PSNR 21.71 dB, rFID 25.98; 64.7 M trainable parameters. Differences of ours:
vq/recipes/study.py. This config was never trained to its end.
"""

from vq.recipes import vqvae_gan_study

_export_ = vqvae_gan_study(_kwargs_, adversarial='fixed', r1=10.0)
