"""The study's VQGAN (adaptive weight, R1) with 1,024 codes that are sampled with a Gumbel-softmax.

    auto_torchrun -m vq.train vqvae_gan_study/vqgan_1024_gumbel configs/vqvae_gan_study/vqgan_1024_gumbel.py
    auto_torchrun -m vq.val   vqvae_gan_study/vqgan_1024_gumbel configs/vqvae_gan_study/vqgan_1024_gumbel.py

Hardware and hours, quoted: 10.335 hours of one A100 per epoch, so 1,550 for 150 epochs. Expected, quoted from row
gumbel_vqgan_cb1024_adaptive_R1 of its tables, on the ImageNet validation images: 100.00 % of the codes in use, perplexity
957.94, MSE 0.0053 (of 0 to 1), SSIM 0.64, PSNR 22.79 dB, rFID 23.05; 66.1 M trainable parameters. Differences of ours:
vq/recipes/study.py. This config was never trained to its end.
"""

from vq.recipes import vqvae_gan_study

_export_ = vqvae_gan_study(_kwargs_, quantizer='gumbel', adversarial='adaptive', r1=10.0)
