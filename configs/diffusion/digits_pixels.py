"""Handwritten digits by diffusion on pixels: no tokenizer. The network estimates the image.

    auto_torchrun -m vq.train digits_pixels configs/diffusion/digits_pixels.py

The choice of JiT (Li and He 2025): large patches through a bottleneck, x0 as the estimate. To learn images of your own, see
docs/tutorials/own_data.md.

Training takes minutes; measured only in the tiny form. Expected: digits of the classes asked for.

Options: those of digits.py.
"""

from vq.recipes import digits_diffusion

pixels = dict(pixels=True, patch=8, bottleneck=32, prediction='x0', threshold=1.0)
_export_ = digits_diffusion(_kwargs_, path='cosine', sampler='DDIM', **pixels)
