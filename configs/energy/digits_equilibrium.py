"""Handwritten digits by equilibrium matching: a field without time, drawn from by gradient descent.

    auto_torchrun -m vq.train digits configs/digits/vq_ema.py
    python -m vq.tools.latents digits --load-model-from digits
    auto_torchrun -m vq.train digits_equilibrium configs/energy/digits_equilibrium.py --config-options \\
        tokenizer_run::work_dirs/digits_latents/tokenizer.safetensors
    auto_torchrun -m vq.sample digits_equilibrium --classes 3 7 --guidance 2

    z = (1 - t) x0 + t eps,  f(z, class) = 4 c(t) (eps - x0) at all t,  z <- z - size f(z) / 4

Training takes minutes, as that of ../diffusion/digits.py; measured only in the tiny form. Expected: digits of the classes
asked for.

Options: those of ../diffusion/digits.py but for its path and sampler, ``energy=True`` (the field is the gradient of an
energy), ``decay``, ``steps``, ``step_size``, ``momentum``.
"""

from vq.recipes import digits_equilibrium

_export_ = digits_equilibrium(_kwargs_)
