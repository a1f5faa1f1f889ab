"""PLACEHOLDER

auto_torchrun -m vq.train digits_simvq configs/digits/simvq.py
"""

_kwargs_.setdefault('quantizer', dict(type='SimVectorQuantizer', codebook_size=256, embedding_dim=8))

_base_ = ['interface.py']
