"""Handwritten digits by energy diffusion: the denoiser of ../diffusion/digits.py as the gradient of an energy.

    auto_torchrun -m vq.train digits configs/digits/vq_ema.py
    python -m vq.tools.latents digits --load-model-from digits
    auto_torchrun -m vq.train digits_energy configs/energy/digits.py --config-options \\
        tokenizer_run::work_dirs/digits_latents/tokenizer.safetensors
    auto_torchrun -m vq.sample digits_energy --classes 3 7 --guidance 2

    z_t = alpha_t x0 + sigma_t eps,  E(z_t, t, class) -> one number,  loss = |m dE/dz_t - eps|^2

A step takes 2.3 times the CPU time of one of ../diffusion/digits.py. Measured with three seeds, on the tokenizer of
``make demo``: 241 to 260 seconds of CPU time with one thread. Of 300 digits a classifier of ../ic/digits.py assigns 99 to
100 % to the requested class, and 89 to 92 % without guidance; the distance within a class is 0.81 to 0.84 (0.97 to 1.00)
times that of held-out digits. All new digits have less energy at the end of the way than at its start. Held-out digits
and letters of a font: area under the ROC curve of the energy 0.99. Of digits of two classes at once, the classifier's two
likeliest classes are the two for 62 to 72 %, by chance 2 %. Expected: at least 95 % (85 %), and 0.65 within a class.

Options: those of ../diffusion/digits.py, of the energy (``reduction``, ``multiplier``, ``learn_step``, ``contrastive``) and of
the inner loop (``inner_loop=True``, ``inner_steps``, ``accept``, ``langevin``, ``curvature``).
"""

from vq.recipes import digits_energy

_export_ = digits_energy(_kwargs_)
