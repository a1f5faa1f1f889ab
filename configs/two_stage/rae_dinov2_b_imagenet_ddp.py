"""Representation autoencoder on ImageNet: DINOv2-B with registers, frozen, and a ViT decoder of 256 pixels.

    auto_torchrun -m vq.train two_stage/rae_dinov2_b_imagenet_ddp configs/two_stage/rae_dinov2_b_imagenet_ddp.py
    auto_torchrun -m vq.val   two_stage/rae_dinov2_b_imagenet_ddp configs/two_stage/rae_dinov2_b_imagenet_ddp.py

16 x 16 latents of 768 channels. The first stage of RAE, as published: 16 epochs, batch 512, learning rate 2e-4 to 2e-5 on a
cosine, betas (0.9, 0.95), EMA 0.9978; L1 + LPIPS + 0.75 adaptive GAN from epoch 8, discriminator (DINO ViT-S/8) from epoch 6;
noise of tau 0.8 on the latents. ``decoder_size=XL`` is the decoder of the published figure. Published: rFID 0.57 on the 50,000
validation images for the XL decoder (README of bytetriper/RAE). Learning rate and betas of the discriminator are assumed to be
those of the decoder. Hardware and hours: not measured. Never trained to its end.

Needs: python -m vq.tools.prepare_checkpoints dinov2-reg-b dino-s8 lpips torchvision-vgg16. After training, latents get their
mean and deviation by vq.tools.latents (docs/latents.md). Published decoders: vq convert rae_decoder FILE.
"""

from vq.recipes import rae

_export_ = rae(_kwargs_)
