"""KL autoencoder on ImageNet, 8 x 8 pixels per cell: 256 pixels, 32 x 32 cells of 4 channels, as under Stable Diffusion.

    auto_torchrun -m vq.train two_stage/klvae_f8_imagenet_ddp configs/two_stage/klvae_f8_imagenet_ddp.py
    auto_torchrun -m vq.val   two_stage/klvae_f8_imagenet_ddp configs/two_stage/klvae_f8_imagenet_ddp.py

To start from a published autoencoder of diffusers, such as sd-vae-ft-ema, convert its folder first:

    vq convert diffusers_kl sd-vae-ft-ema
    auto_torchrun -m vq.train NAME configs/two_stage/klvae_f8_imagenet_ddp.py --load-model-from sd-vae-ft-ema.converted

Hyperparameters of latent diffusion (autoencoder_kl_32x32x4.yaml): Adam 4.5e-6 per image, L1 + LPIPS, KL 1e-6, adversarial
gain 0.5 from step 50,000 on. Hardware and hours: not measured here, and published nowhere; theirs had 12 images per GPU.
Expected, quoted from the README of latent-diffusion for its model of this shape, trained on OpenImages for 246,803 steps: rFID
0.90 and 24.19 dB PSNR on ImageNet's validation images. This config was never trained to its end.

Options: ``latent_channels`` (4), ``kl_weight`` (1e-6), ``perturbation``, and those that ``vq.config FILE --options`` prints.
"""

from vq.recipes import kl

_export_ = kl(_kwargs_, latent_channels=4, multipliers=(1, 2, 4, 4), iters=250_000)
