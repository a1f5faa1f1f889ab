"""LlamaGen VQ-16 without the refining blocks at the lowest resolution, on ImageNet.

    auto_torchrun -m vq.train llamagen/vqgan_no_refine_imagenet_ddp configs/llamagen/vqgan_no_refine_imagenet_ddp.py
    auto_torchrun -m vq.val   llamagen/vqgan_no_refine_imagenet_ddp configs/llamagen/vqgan_no_refine_imagenet_ddp.py

An ablation: only the last level keeps its attention. Hardware and hours: not measured here; a little less than
vqgan_imagenet_ddp.py (quoted: 8 A100, about 2 days). Expected figures: none are published. Never trained to its end.
"""

from vq.recipes import llamagen_tokenizer

_export_ = llamagen_tokenizer(_kwargs_, refine=False)
