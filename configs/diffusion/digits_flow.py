"""Handwritten digits by flow matching: digits.py on the straight path, with times that are denser in the middle.

    auto_torchrun -m vq.train digits configs/digits/vq_ema.py
    python -m vq.tools.latents digits --load-model-from digits
    auto_torchrun -m vq.train digits_flow configs/diffusion/digits_flow.py --config-options \\
        tokenizer_run::work_dirs/digits_latents/tokenizer.safetensors

Training takes minutes; measured only in the tiny form. Expected: digits of the classes asked for.

Options: those of digits.py.
"""

from vq.recipes import digits_diffusion

_export_ = digits_diffusion(_kwargs_, path='flow', times='logit_normal', sampler='Heun', steps=10)
