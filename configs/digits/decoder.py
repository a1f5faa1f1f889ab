"""A new decoder for a frozen digits tokenizer.

    auto_torchrun -m vq.train digits configs/digits/vq_ema.py
    auto_torchrun -m vq.train digits_decoder configs/digits/decoder.py --config-options tokenizer_run::digits
    auto_torchrun -m vq.val   digits_decoder configs/digits/decoder.py --config-options tokenizer_run::digits

350 steps took 45 to 64 seconds on one of 2 shared CPU cores (35 seconds of CPU time). Measured on the 180 validation digits,
on one tokenizer of vq_ema.py (31.3 dB with its original decoder), seeds 3407, 1, 2: 30.7, 30.6, 30.6 dB. With a discriminator
from step 150 on, one seed (``ir_config::configs/digits/vqgan.py start:150``): 30.7 dB. On a tokenizer of only 150 steps
(23.0 dB with its original decoder): 26.8 dB.

Options: ``tokenizer_run`` (any run of this family), ``iters`` (350), and those that ``vq.config FILE --options`` prints.
"""

from vq.recipes import pixel_decoder

_export_ = pixel_decoder(_kwargs_, it_config='configs/digits/vq_ema.py', ir_config='configs/digits/vq_ema.py', iters=350)
