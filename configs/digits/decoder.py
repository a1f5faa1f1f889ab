"""A new decoder for a digits tokenizer that stays as it is.

    auto_torchrun -m vq.train digits configs/digits/vq_ema.py
    auto_torchrun -m vq.train digits_decoder configs/digits/decoder.py --config-options tokenizer_run::digits
    auto_torchrun -m vq.val   digits_decoder configs/digits/decoder.py --config-options tokenizer_run::digits

350 steps took 45 to 64 seconds on one of 2 shared CPU cores (35 seconds of CPU time). Measured on the 180 validation digits,
on one tokenizer of vq_ema.py that has 31.3 dB with the decoder it was trained with, seeds 3407, 1, 2: 30.7, 30.6, 30.6 dB.
One seed against a discriminator from step 150 on (``ir_config::configs/digits/vqgan.py start:150``): 30.7 dB. On a tokenizer
of only 150 steps, which has 23.0 dB with its own decoder, a new one has 26.8 dB.

Options: ``tokenizer_run`` (any run of this family), ``iters`` (350), and those that ``vq.config FILE --options`` prints.
"""

from vq.recipes import pixel_decoder

_export_ = pixel_decoder(_kwargs_, it_config='configs/digits/vq_ema.py', ir_config='configs/digits/vq_ema.py', iters=350)
