"""Codes that learn by gradient, and start again from a feature of the batch when they die.

    auto_torchrun -m vq.train digits_restart configs/digits/vq_restart.py

Options: those of interface.py.
"""

_kwargs_.setdefault(
    'quantizer',
    dict(type='VectorQuantizer', codebook_size=256, embedding_dim=16, update=dict(type='RestartUnused', threshold=0.1)),
)

_base_ = ['interface.py']
