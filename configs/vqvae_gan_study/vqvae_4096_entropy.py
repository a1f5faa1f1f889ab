"""The study's VQ-VAE with 4,096 codes and the entropy loss of MaskGIT's tokenizer.

    auto_torchrun -m vq.train vqvae_gan_study/vqvae_4096_entropy configs/vqvae_gan_study/vqvae_4096_entropy.py
    auto_torchrun -m vq.val   vqvae_gan_study/vqvae_4096_entropy configs/vqvae_gan_study/vqvae_4096_entropy.py

Hardware and hours, quoted: 2.194 hours of one A100 per epoch, so 329 for 150 epochs. Expected, quoted from row
entropy_vqvae_cb4096 of its tables, on the ImageNet validation images: 64.16 % of the codes in use, perplexity 2,374.97, MSE
0.0044 (of 0 to 1), SSIM 0.68, PSNR 23.50 dB, rFID 47.50; 36.6 M trainable parameters. Differences of ours:
vq/recipes/study.py. This config was never trained to its end.
"""

from vq.recipes import vqvae_gan_study

_export_ = vqvae_gan_study(_kwargs_, codebook_size=4096, quantizer='entropy')
