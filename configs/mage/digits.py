"""Handwritten digits by MAGE: an encoder reads half of the tokens, a decoder predicts all masked ones at once, in 6 steps.

    auto_torchrun -m vq.train  digits configs/digits/vq_ema.py
    auto_torchrun -m vq.train  digits_mage configs/mage/digits.py --config-options tokenizer_run::digits
    auto_torchrun -m vq.sample digits_mage configs/mage/digits.py --config-options tokenizer_run::digits \\
        --load-model-from work_dirs/digits_mage

1,500 steps took 562 seconds on one of 2 busy CPU cores (210 seconds of CPU time). Measured on the tokenizer of ``make demo``,
each with 500 digits drawn with seeds 3407, 1, 2, with the classifier of ../ic/digits.py:

| seed 3407 of training | digits of the requested class | Frechet distance to held-out digits |
|---|---|---|
| this config | 499, 500, 499 | 1.59, 1.57, 1.69 |
| this config, without guidance | 496, 495, 499 | 1.31, 1.21, 1.23 |
| this config, ``choice_temperature:2`` | 496, 500, 499 | |
| ../digits/maskgit.py | 497, 500, 497 | 2.57, 2.46, 2.50 |

The choice temperature was chosen among 0.5, 1 and 2 by these figures. With four layers in the encoder (``depth:4``)
and 2: 497, 498, 497.

Options: those of ../digits/ar.py, and ``steps`` (6), ``order`` (confidence; halton), ``choice_temperature`` (1),
``depth`` (2), ``decoder_depth`` (2), ``mask_min`` (0.5).
"""

from vq.recipes import digits_generator

network = dict(method='mage', depth=2, decoder_depth=2, steps=6, choice_temperature=1.0)
_export_ = digits_generator(_kwargs_, iters=1500, label_smoothing=0.1, **network)
