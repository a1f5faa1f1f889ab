"""PLACEHOLDER

auto_torchrun -m vq.train digits_bsq configs/digits/bsq.py
"""

_kwargs_.setdefault(
    'quantizer',
    dict(type='BinarySphericalQuantizer', bits=8, entropy=dict(weight=0.1, temperature=0.1), entropy_group=8),
)

_base_ = ['interface.py']
