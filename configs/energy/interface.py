"""Energy diffusion, or plain diffusion with its settings, on images, on latents of a frozen tokenizer, or on a cache of these.

    z_t = alpha_t x0 + sigma_t eps,  E(z_t, t, class) -> one number,  loss = |m dE/dz_t - eps|^2

``vq.config FILE --options`` prints the options of energy, inner loop and losses, and those of ../diffusion/interface.py.
"""

from vq.recipes import energy_diffusion

_export_ = energy_diffusion(_kwargs_)
