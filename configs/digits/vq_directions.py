"""Unit-length codes that track the mean direction of their features: VQ-KD's codebook (Peng et al. 2022), on pixels.

    auto_torchrun -m vq.train digits_directions configs/digits/vq_directions.py

700 steps took 114 seconds on 2 CPU cores shared with other programs. Measured on the 180 validation digits, one seed:
25.5 dB PSNR, 11 % of the codes in use: without k-means initialization (VQ-KD has it; see vq_kmeans.py) most codes are never
the nearest code of a feature. Options: ``vq.config FILE --options`` prints them.
"""

from vq.recipes import digits_tokenizer

quantizer = dict(type='VectorQuantizer', normalize=True, commitment_weight=1.0, update=dict(type='VQKDUpdate'))
_export_ = digits_tokenizer(_kwargs_, quantizer=quantizer, embedding_dim=16)
