"""VQGAN with 8,192 codes on SA-Med2D-20M, 256 pixels, 16 x 16 tokens.

    auto_torchrun -m vq.train vqgan/8192_sa_med2d_20m_ddp configs/vqgan/8192_sa_med2d_20m_ddp.py
    auto_torchrun -m vq.val   vqgan/8192_sa_med2d_20m_ddp configs/vqgan/8192_sa_med2d_20m_ddp.py

Every n-th image is held out, 25,000 in all. Hardware and hours: not measured here, and published nowhere. Expected figures:
none are published for this recipe. Never trained to its end.
"""

from vq.recipes import vqgan

_export_ = vqgan(_kwargs_, dataset='sa_med2d_20m', codebook_size=8192)
