"""Residual quantization: 16 codes for the feature, 16 more for what they leave over. 8 bits a cell, like 256 codes.

    auto_torchrun -m vq.train digits_residual configs/digits/residual.py

700 steps took 375 seconds on one of 2 CPU cores that many other programs shared (load 10), 95 seconds of CPU time. Measured on
the 180 validation digits, one seed: 30.6 dB PSNR, all codes of both stages in use (perplexity 14.8 and 15.7 of 16); not tuned.

Options: ``stages`` (2), ``codes`` (16 per stage), and those of interface.py.
"""

_stages, _codes = _kwargs_.get('stages', 2), _kwargs_.get('codes', 16)
_kwargs_.setdefault('codebook_size', [_codes] * _stages)  # of the metric: a codebook for each stage
_kwargs_.setdefault(
    'quantizer',
    dict(
        type='ResidualQuantizer',
        quantizer=dict(
            type='VectorQuantizer',
            codebook_size=_codes,
            embedding_dim=8,
            update=dict(type='EMAUpdate', decay=0.97, restart=dict(threshold=0.1)),
        ),
        stages=_stages,
    ),
)

_base_ = ['interface.py']
