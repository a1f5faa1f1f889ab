"""LlamaGen VQ-16 on ImageNet at 384 pixels: 24 x 24 tokens, 16,384 codes of 8 channels.

    auto_torchrun -m vq.train llamagen/vqgan_384_imagenet_ddp configs/llamagen/vqgan_384_imagenet_ddp.py
    auto_torchrun -m vq.val   llamagen/vqgan_384_imagenet_ddp configs/llamagen/vqgan_384_imagenet_ddp.py

Hardware and hours: not measured here; 2.25 times the pixels of the model at 256. Expected, quoted from the LlamaGen README for
384 pixels, evaluated at 256: rFID 0.94. This config was never trained to its end.
"""

from vq.recipes import llamagen_tokenizer

_export_ = llamagen_tokenizer(_kwargs_, image_size=384)
