"""PLACEHOLDER

auto_torchrun -m vq.train digits_lfq configs/digits/lfq.py
"""

_kwargs_.setdefault(
    'quantizer',
    dict(type='LookupFreeQuantizer', bits=8, entropy=dict(weight=0.2, temperature=0.3)),
)

_base_ = ['interface.py']
