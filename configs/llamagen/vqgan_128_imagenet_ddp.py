"""LlamaGen VQ-16 with only 128 codes of 8 channels, on ImageNet: 7 bits per token.

    auto_torchrun -m vq.train llamagen/vqgan_128_imagenet_ddp configs/llamagen/vqgan_128_imagenet_ddp.py
    auto_torchrun -m vq.val   llamagen/vqgan_128_imagenet_ddp configs/llamagen/vqgan_128_imagenet_ddp.py

Hardware and hours: as vqgan_imagenet_ddp.py (quoted: 8 A100, about 2 days). Expected figures: none are published for this
size. It measures how much quality a small codebook loses. Never trained to its end.
"""

from vq.recipes import llamagen_tokenizer

_export_ = llamagen_tokenizer(_kwargs_, codebook_size=128)
