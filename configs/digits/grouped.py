"""Product quantization: two halves of the channels, 16 codes each. 8 bits a cell, like 256 codes.

    auto_torchrun -m vq.train digits_grouped configs/digits/grouped.py

HEADER
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
