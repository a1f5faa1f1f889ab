"""VQGAN with 8,192 codes whose latent is aligned with DINOv2's patches, by the distance of VA-VAE, on ImageNet.

    auto_torchrun -m vq.train vqgan/8192_aligned_imagenet_ddp configs/vqgan/8192_aligned_imagenet_ddp.py
    auto_torchrun -m vq.val   vqgan/8192_aligned_imagenet_ddp configs/vqgan/8192_aligned_imagenet_ddp.py

`place=tokenizer.decoder.levels.0` aligns the decoder instead; `teacher` and `distance` are options too. Hardware and hours:
not measured here. Expected figures: none are published for this recipe. VA-VAE aligns a continuous latent; GigaTok, which
aligns a layer of the decoder, quotes gFID 1.98 with its largest models. Never trained to its end.
"""

from vq.recipes import aligned_vqgan

_export_ = aligned_vqgan(_kwargs_, codebook_size=8192, adaptive=True)
