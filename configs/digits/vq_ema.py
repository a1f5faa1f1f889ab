"""VQ with an EMA codebook and restarts of dead codes, on handwritten digits: 32 pixels, 16 tokens, 256 codes.

    auto_torchrun -m vq.train digits configs/digits/vq_ema.py

700 steps took 138 to 166 seconds on 2 CPU cores shared with other programs (load 4 to 5); 86 seconds of CPU time on one
core. Expected, and measured with demo.py (`python -m vq.demo`, seeds 3407, 1, 2): 31.3, 31.1, 31.6 dB PSNR and 100, 99.6,
99.6 % of the codes in use on the 180 validation digits. k-means on raw patches has 25.0 dB.

Options: ``codebook_size`` (256), ``embedding_dim`` (8), and those that ``vq.config FILE --options`` prints.
"""

from vq.recipes import digits_tokenizer

update = dict(type='EMAUpdate', decay=0.97, restart=dict(threshold=0.1))
_export_ = digits_tokenizer(_kwargs_, quantizer=dict(type='VectorQuantizer', commitment_weight=0.25, update=update))
