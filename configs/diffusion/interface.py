"""A denoiser, for configs of diffusion on pixels, on the latents of a frozen tokenizer, or on a cache of these.

    image -> frozen tokenizer -> x0;    z_t = alpha x0 + sigma eps;    z_t, t, class -> denoiser -> squared error

The tokenizer is ``tokenizer_run``, or ``it_config`` (with ``it_state_dict``); see ../models/frozen_tokenizer.py.
``vq.config FILE --options`` prints the options of denoiser, path, loss, times, sampler, guidance and training.
"""

from vq.recipes import diffusion

_export_ = diffusion(_kwargs_)
