"""Finite scalar quantization (Mentzer et al. 2023): no codebook at all, 8 x 8 x 4 = 256 codes by rounding.

    auto_torchrun -m vq.train digits_fsq configs/digits/fsq.py

Nothing can die, so there is no codebook loss and no alarm to fear. Options: those of interface.py.
"""

_kwargs_.setdefault('quantizer', dict(type='FiniteScalarQuantizer', levels=[8, 8, 4]))

_base_ = ['interface.py']
