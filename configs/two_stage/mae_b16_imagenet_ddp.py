"""Masked autoencoder as an image autoencoder on ImageNet: MAE's ViT-B/16, frozen, and a decoder trained for pixels.

    auto_torchrun -m vq.train two_stage/mae_b16_imagenet_ddp configs/two_stage/mae_b16_imagenet_ddp.py
    auto_torchrun -m vq.val   two_stage/mae_b16_imagenet_ddp configs/two_stage/mae_b16_imagenet_ddp.py

256 pixels, 16 x 16 latents of 768 channels. L1 + LPIPS + adaptive GAN with a small ViT discriminator. No figures and no
hyperparameters are published for this autoencoder; none of these was tuned.
Hardware and hours: not measured. Never trained to its end.

Options: ``mask_ratio`` (0), ``train_encoder`` (False), ``no_cls`` (True), ``loss`` (l1 or l2).
Needs: python -m vq.tools.prepare_checkpoints mae lpips torchvision-vgg16
"""

from vq.recipes import mae_autoencoder

_export_ = mae_autoencoder(_kwargs_)
