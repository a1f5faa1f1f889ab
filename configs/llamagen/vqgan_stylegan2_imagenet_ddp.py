"""LlamaGen VQ-16 with the discriminator of StyleGAN2, on ImageNet.

    auto_torchrun -m vq.train llamagen/vqgan_stylegan2_imagenet_ddp configs/llamagen/vqgan_stylegan2_imagenet_ddp.py
    auto_torchrun -m vq.val   llamagen/vqgan_stylegan2_imagenet_ddp configs/llamagen/vqgan_stylegan2_imagenet_ddp.py

Hardware and hours: not measured here. Expected figures: none are published for this discriminator (with the PatchGAN the
LlamaGen README quotes rFID 2.19). Never trained to its end.
"""

from vq.recipes import llamagen_tokenizer

_export_ = llamagen_tokenizer(_kwargs_, discriminator=dict(type='StyleGAN2Discriminator'))
