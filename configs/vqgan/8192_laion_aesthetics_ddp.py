"""VQGAN with 8,192 codes on LAION-Aesthetics, 256 pixels, 16 x 16 tokens.

    auto_torchrun -m vq.train vqgan/8192_laion_aesthetics_ddp configs/vqgan/8192_laion_aesthetics_ddp.py
    auto_torchrun -m vq.val   vqgan/8192_laion_aesthetics_ddp configs/vqgan/8192_laion_aesthetics_ddp.py

The last 25,000 images are held out. Hardware and hours: not measured here, and published nowhere. Expected figures:
none are published for this recipe. Never trained to its end.
"""

from vq.recipes import vqgan

_export_ = vqgan(_kwargs_, dataset='laion_aesthetics', codebook_size=8192)
