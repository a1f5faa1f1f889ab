"""The study's VQGAN with 1,024 codes; an adaptive weight of gain 0.8 balances the adversarial term with LPIPS.

    auto_torchrun -m vq.train vqvae_gan_study/vqgan_1024_adaptive configs/vqvae_gan_study/vqgan_1024_adaptive.py
    auto_torchrun -m vq.val   vqvae_gan_study/vqgan_1024_adaptive configs/vqvae_gan_study/vqgan_1024_adaptive.py

Hardware and hours, quoted: 9.121 hours of one A100 per epoch, so 1,368 for 150 epochs. Expected, quoted from row
standard_vqgan_cb1024_adaptive of its tables, on the ImageNet validation images: 91.02 % of the codes in use, perplexity
702.22, MSE 0.0054 (of 0 to 1), SSIM 0.65, PSNR 22.67 dB, rFID 21.56; 64.7 M trainable parameters. Differences of ours:
vq/recipes/study.py. This config was never trained to its end.
"""

from vq.recipes import vqvae_gan_study

_export_ = vqvae_gan_study(_kwargs_, adversarial='adaptive')
