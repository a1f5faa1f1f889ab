"""Product quantization: two halves of the channels, 16 codes each. 8 bits a cell, like 256 codes.

    auto_torchrun -m vq.train digits_grouped configs/digits/grouped.py

700 steps took 325 seconds on one of 2 CPU cores that many other programs shared (load 10), 92 seconds of CPU time. Measured on
the 180 validation digits, one seed: 30.1 dB PSNR, all codes of both groups in use (mean perplexity 15.0 of 16); not tuned.

Options: ``groups`` (2), ``codes`` (16 per group), and those of interface.py.
"""

_groups, _codes = _kwargs_.get('groups', 2), _kwargs_.get('codes', 16)
_kwargs_.setdefault('codebook_size', [_codes] * _groups)  # of the metric: a codebook for each group
_kwargs_.setdefault(
    'quantizer',
    dict(
        type='GroupedQuantizer',
        quantizer=dict(
            type='VectorQuantizer',
            codebook_size=_codes,
            embedding_dim=8 // _groups,
            update=dict(type='EMAUpdate', decay=0.97, restart=dict(threshold=0.1)),
        ),
        groups=_groups,
    ),
)

_base_ = ['interface.py']
