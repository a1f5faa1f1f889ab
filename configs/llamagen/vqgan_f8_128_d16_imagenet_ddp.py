"""LlamaGen VQ-8 with 128 codes of 16 channels, on ImageNet: 256 pixels, 32 x 32 tokens of 7 bits.

    auto_torchrun -m vq.train llamagen/vqgan_f8_128_d16_imagenet_ddp configs/llamagen/vqgan_f8_128_d16_imagenet_ddp.py
    auto_torchrun -m vq.val   llamagen/vqgan_f8_128_d16_imagenet_ddp configs/llamagen/vqgan_f8_128_d16_imagenet_ddp.py

Hardware and hours: not measured here. Expected figures: none are published for this size (with 16,384 codes the LlamaGen
README quotes rFID 0.59 for 8 pixels per token). Never trained to its end.
"""

from vq.recipes import llamagen_tokenizer

_export_ = llamagen_tokenizer(_kwargs_, codebook_size=128, embedding_dim=16, multipliers=(1, 2, 2, 4))
