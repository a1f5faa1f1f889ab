"""FSQ with plain SGD and Nesterov momentum: fsq.py with another optimizer. AdamW is better here.

    auto_torchrun -m vq.train digits_fsq_sgd configs/digits/fsq_sgd.py

700 steps took 260 seconds on 2 CPU cores shared with other programs. Measured on the 180 validation digits, one seed:
27.4 dB PSNR, 85 % of the codes in use (fsq.py: 29.4 dB, 93 %). Options: ``vq.config FILE --options`` prints them.
"""

from vq.recipes import digits_tokenizer

quantizer = dict(type='FiniteScalarQuantizer', levels=[8, 8, 4])
optimizer = dict(type='SGD', lr=0.1, momentum=0.9, nesterov=True)
_export_ = digits_tokenizer(_kwargs_, quantizer=quantizer, optimizer=optimizer)
