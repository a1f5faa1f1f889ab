"""Handwritten digits by masked generation: a small bidirectional transformer predicts all tokens at once, in 6 steps.

    auto_torchrun -m vq.train  digits configs/digits/vq_ema.py
    auto_torchrun -m vq.train  digits_maskgit configs/digits/maskgit.py --config-options tokenizer_run::digits
    auto_torchrun -m vq.sample digits_maskgit configs/digits/maskgit.py --config-options tokenizer_run::digits \\
        --load-model-from work_dirs/digits_maskgit

1,500 steps took 231 seconds on one of 2 shared CPU cores (225 seconds of CPU time). Measured once, seed 3407, on the tokenizer
of ``make demo``: the classifier of ../ic/digits.py assigns 100 % of 500 digits to the requested class (99.6 % without
guidance).

Options: those of ar.py, and ``steps`` (6), ``order`` (confidence; halton), ``mask_ratio`` (cosine; mage).
"""

from vq.recipes import digits_generator

_export_ = digits_generator(_kwargs_, method='masked', steps=6, choice_temperature=2.0, iters=1500, label_smoothing=0.1)
