"""PLACEHOLDER

auto_torchrun -m vq.train digits_rotation configs/digits/vq_rotation.py
"""

_kwargs_.setdefault(
    'quantizer',
    dict(
        type='VectorQuantizer',
        codebook_size=256,
        embedding_dim=8,
        gradient='rotation',
        update=dict(type='EMAUpdate', decay=0.97, restart=dict(threshold=0.1)),
    ),
)

_base_ = ['interface.py']
