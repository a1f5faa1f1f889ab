"""VAR's multi-scale residual quantization: 1 + 4 + 9 + 16 = 30 tokens of 16 codes, coarse to fine. 120 bits an image.

    auto_torchrun -m vq.train digits_multi_scale configs/digits/multi_scale.py

700 steps took 396 seconds on one of 2 CPU cores that many other programs shared (load 10), 98 seconds of CPU time. Measured on
the 180 validation digits, one seed: 27.3 dB PSNR, all 16 codes in use (perplexity 13.3); not tuned.

Options: ``codebook_size`` (16), and those of interface.py; ``image_size`` stays at 32, which gives 4 x 4 cells.
"""

_kwargs_.setdefault('codebook_size', 16)
_kwargs_.setdefault(
    'quantizer',
    dict(
        type='MultiScaleQuantizer',
        quantizer=dict(
            type='VectorQuantizer',
            codebook_size=_kwargs_['codebook_size'],
            embedding_dim=8,
            update=dict(type='EMAUpdate', decay=0.97, restart=dict(threshold=0.1)),
        ),
        scales=(1, 2, 3, 4),
    ),
)

_base_ = ['interface.py']
