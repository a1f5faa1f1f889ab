"""KL autoencoder on ImageNet, 16 x 16 pixels per cell (KL-16): 256 pixels, 16 x 16 cells of 16 channels.

    auto_torchrun -m vq.train two_stage/klvae_f16_imagenet_ddp configs/two_stage/klvae_f16_imagenet_ddp.py
    auto_torchrun -m vq.val   two_stage/klvae_f16_imagenet_ddp configs/two_stage/klvae_f16_imagenet_ddp.py

Hyperparameters of latent diffusion (autoencoder_kl_16x16x16.yaml): Adam 4.5e-6 per image, L1 + LPIPS, KL 1e-6, adversarial
gain 0.5 from step 50,000 on. The network is that of MAR's KL-16, which ``vq convert mar_kl16`` converts; latent diffusion's
has attention on both sides (``attention=both``). Hardware and hours: not measured here, and published nowhere; theirs had 12
images per GPU. Expected, quoted from the README of latent-diffusion for its model, trained on OpenImages for 442,998 steps:
rFID 0.87 and 24.08 dB PSNR on ImageNet's validation images. This config was never trained to its end.

Options: ``latent_channels`` (16), ``kl_weight`` (1e-6), ``attention`` (encoder), ``perturbation``, and those that
``vq.config FILE --options`` prints.
"""

from vq.recipes import kl

_export_ = kl(_kwargs_, attention='encoder', iters=440_000)
