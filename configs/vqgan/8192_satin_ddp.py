"""VQGAN with 8,192 codes on the 19 datasets of SATIN, 256 pixels, 16 x 16 tokens.

    auto_torchrun -m vq.train vqgan/8192_satin_ddp configs/vqgan/8192_satin_ddp.py
    auto_torchrun -m vq.val   vqgan/8192_satin_ddp configs/vqgan/8192_satin_ddp.py

Every n-th image of each is held out, 10 %. Hardware and hours: not measured here, and published nowhere. Expected figures:
none are published for this recipe. Never trained to its end.
"""

from vq.recipes import vqgan

_export_ = vqgan(_kwargs_, dataset='satin', codebook_size=8192)
