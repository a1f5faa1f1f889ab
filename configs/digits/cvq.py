"""CVQ-VAE's clustering of codes (Zheng and Vedaldi 2023): codes that are little used move to the nearest feature.

    auto_torchrun -m vq.train digits_cvq configs/digits/cvq.py

700 steps took 115 seconds on 2 CPU cores that other programs shared. Measured on the 180 validation digits, one seed:
25.9 dB PSNR, 88 % of the codes in use; not tuned. Options: those of interface.py.
"""

_kwargs_.setdefault(
    'quantizer',
    dict(type='VectorQuantizer', codebook_size=256, embedding_dim=16, distance='cosine', update=dict(type='CVQUpdate')),
)

_base_ = ['interface.py']
