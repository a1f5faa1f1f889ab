"""VQ with an EMA codebook and restarts of dead codes, on handwritten digits. K = 256.

    auto_torchrun -m vq.train digits configs/digits/vq_ema.py
"""

_kwargs_.setdefault('codebook_size', 256)
_kwargs_.setdefault('quantizer', dict(
    type='VectorQuantizer',
    codebook_size=_kwargs_['codebook_size'],
    embedding_dim=_kwargs_.get('embedding_dim', 16),
    commitment_weight=0.25,
    update=dict(type='EMAUpdate', decay=0.97, restart=dict(threshold=0.1)),
))

_base_ = ['interface.py']
_export_ = dict()
