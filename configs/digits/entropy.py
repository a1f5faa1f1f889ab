"""PLACEHOLDER

auto_torchrun -m vq.train digits_entropy configs/digits/entropy.py
"""

_kwargs_.setdefault(
    'quantizer',
    dict(
        type='VectorQuantizer',
        codebook_size=256,
        embedding_dim=8,
        normalize=True,
        init='normal',
        entropy=dict(weight=0.05, temperature=0.1),
    ),
)

_base_ = ['interface.py']
