"""PLACEHOLDER

auto_torchrun -m vq.train digits_ibq configs/digits/ibq.py
"""

_kwargs_.setdefault(
    'quantizer',
    dict(
        type='IndexBackpropagationQuantizer',
        codebook_size=256,
        embedding_dim=32,
        entropy=dict(weight=0.3, temperature=0.1),
    ),
)

_base_ = ['interface.py']
