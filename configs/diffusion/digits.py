"""Handwritten digits by diffusion: a small class-conditional DiT on the latents of a digits tokenizer, with guidance.

    auto_torchrun -m vq.train digits configs/digits/vq_ema.py
    python -m vq.tools.latents digits --load-model-from digits
    auto_torchrun -m vq.train digits_diffusion configs/diffusion/digits.py --config-options \\
        tokenizer_run::work_dirs/digits_latents/tokenizer.safetensors
    auto_torchrun -m vq.val digits_diffusion
    auto_torchrun -m vq.sample digits_diffusion --classes 3 7 --guidance 2
    vq report digits_diffusion --classifier ic/digits

The second command puts mean and deviation of the latents into a file of the tokenizer. On the tokenizer of ``make demo``, the
normalized features before the quantizer have deviations of 1.00 to 1.06.

Measured once, seed 3407, on the tokenizer of ``make demo``: 900 steps took 99 seconds of CPU time with one thread, start and
imports included and evaluation left out, and 217 seconds beside other programs (2 cores, load about 6). Of 300 digits, all
classes in turn, a classifier of ../ic/digits.py (99.2 % on the 360 held-out digits) assigns 100 % to the requested class (97.3
% without guidance). The mean distance within a class is 0.81 (0.93) times that of the held-out digits, in pixels. Expected: at
least 97 % (88 %) and 0.65. With ``patch:1``, 16 tokens in place of 4, a step took 257 ms of CPU time, about three quarters of
it in the denoiser (8 steps, on a machine with a load of 22).

Options: ``tokenizer_run`` (any run of configs/digits), ``features_run`` (a run of ic/digits.py: figures on the features of
that classifier), and those that ``vq.config FILE --options`` prints.
"""

from vq.recipes import digits_diffusion

_export_ = digits_diffusion(_kwargs_)
