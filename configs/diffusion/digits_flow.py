"""Handwritten digits by flow matching: digits.py on the straight path, with times that are denser in the middle.

    auto_torchrun -m vq.train digits configs/digits/vq_ema.py
    python -m vq.tools.latents digits --load-model-from digits
    auto_torchrun -m vq.train digits_flow configs/diffusion/digits_flow.py --config-options \\
        tokenizer_run::work_dirs/digits_latents/tokenizer.safetensors

900 steps took 82 to 108 seconds of CPU time with one thread (three seeds, on the tokenizer of ``make demo``). A classifier
assigns 100 % of 300 digits to the class asked for, 97 to 98 % without guidance. Expected: at least 97 and 88 %.

Options: those of digits.py.
"""

from vq.recipes import digits_diffusion

_export_ = digits_diffusion(_kwargs_, path='flow', times='logit_normal', sampler='Heun', steps=10)
