"""The study's VQ-VAE with 4,096 codes that are sampled with a Gumbel-softmax.

    auto_torchrun -m vq.train vqvae_gan_study/vqvae_4096_gumbel configs/vqvae_gan_study/vqvae_4096_gumbel.py
    auto_torchrun -m vq.val   vqvae_gan_study/vqvae_4096_gumbel configs/vqvae_gan_study/vqvae_4096_gumbel.py

Hardware and hours, quoted: 2.358 hours of one A100 per epoch, so 354 for 150 epochs. Expected, quoted from row
gumbel_vqvae_cb4096 of its tables, on the ImageNet validation images: 96.99 % of the codes in use, perplexity 3,475.23, MSE
0.0046 (of 0 to 1), SSIM 0.67, PSNR 23.38 dB, rFID 59.25; 55.4 M trainable parameters. Differences of ours:
vq/recipes/study.py. This config was never trained to its end.
"""

from vq.recipes import vqvae_gan_study

_export_ = vqvae_gan_study(_kwargs_, codebook_size=4096, quantizer='gumbel')
