"""Handwritten digits by energy diffusion: the denoiser of ../diffusion/digits.py as the gradient of an energy.

    auto_torchrun -m vq.train digits configs/digits/vq_ema.py
    python -m vq.tools.latents digits --load-model-from digits
    auto_torchrun -m vq.train digits_energy configs/energy/digits.py --config-options \\
        tokenizer_run::work_dirs/digits_latents/tokenizer.safetensors
    auto_torchrun -m vq.sample digits_energy --classes 3 7 --guidance 2

    z_t = alpha_t x0 + sigma_t eps,  E(z_t, t, class) -> one number,  loss = |m dE/dz_t - eps|^2

Training takes minutes, about twice those of ../diffusion/digits.py; measured only in the tiny form. Expected: digits of the
classes asked for.

Options: those of ../diffusion/digits.py, of the energy (``reduction``, ``multiplier``, ``learn_step``, ``contrastive``) and of
the inner loop (``inner_loop=True``, ``inner_steps``, ``accept``, ``langevin``, ``curvature``).
"""

from vq.recipes import digits_energy

_export_ = digits_energy(_kwargs_)
