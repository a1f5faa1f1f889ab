"""Handwritten digits by diffusion: a small class-conditional DiT on the latents of a digits tokenizer, with guidance.

    auto_torchrun -m vq.train digits configs/digits/vq_ema.py
    python -m vq.tools.latents digits --load-model-from digits
    auto_torchrun -m vq.train digits_diffusion configs/diffusion/digits.py --config-options \\
        tokenizer_run::work_dirs/digits_latents/tokenizer.safetensors
    auto_torchrun -m vq.val digits_diffusion
    auto_torchrun -m vq.sample digits_diffusion --classes 3 7 --guidance 2

The second command puts mean and deviation of the latents into a file of the tokenizer. On the tokenizer of ``make demo``, the
normalized features before the quantizer have deviations of 1.00 to 1.06.

1,500 steps took 25 minutes with evaluations on one core shared with many programs (160 images a second at its end, when fewer
ran). Measured once, seed 3407, on the tokenizer of ``make demo``, 300 digits, all classes in turn: a classifier of
../ic/digits.py (194 steps) assigns 100 % to the requested class (98.3 % without guidance). Expected: at least 97 % (88 %).

Options: ``tokenizer_run`` (any run of configs/digits), ``features_run`` (a run of ic/digits.py: figures on the features of
that classifier), and those that ``vq.config FILE --options`` prints.
"""

from vq.recipes import digits_diffusion

_export_ = digits_diffusion(_kwargs_)
