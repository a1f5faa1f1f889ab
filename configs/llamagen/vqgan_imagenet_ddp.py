"""LlamaGen VQ-16 on ImageNet: 256 pixels, 16 x 16 tokens, 16,384 codes of 8 channels.

    auto_torchrun -m vq.train llamagen/vqgan_imagenet_ddp configs/llamagen/vqgan_imagenet_ddp.py
    auto_torchrun -m vq.val   llamagen/vqgan_imagenet_ddp configs/llamagen/vqgan_imagenet_ddp.py

Hardware and hours, quoted from the authors (issue 8 of their repository) for 256 pixels: 8 A100, about 2 days.
Expected, quoted from the LlamaGen README: rFID 2.19 on the 50,000 validation images at 256 pixels; the paper
reports 97 % of the codes in use. The published weights: python -m vq.tools.prepare_checkpoints llamagen-vq-16
"""

from vq.recipes import llamagen_tokenizer

_export_ = llamagen_tokenizer(_kwargs_)
