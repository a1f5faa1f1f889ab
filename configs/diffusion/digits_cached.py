"""Handwritten digits by diffusion on cached latents: digits.py without images and encoder in the training steps.

A cache holds what the decoder takes: of this tokenizer the code vectors.

    auto_torchrun -m vq.train digits configs/digits/vq_ema.py
    python -m vq.tools.latents digits --load-model-from digits
    vq data latents work_dirs/digits --load-model-from work_dirs/digits_latents/tokenizer.safetensors \\
        --output-folder work_dirs/latents/digits --no-mirror
    auto_torchrun -m vq.train digits_cached configs/diffusion/digits_cached.py --config-options \\
        tokenizer_run::work_dirs/digits_latents/tokenizer.safetensors

With a continuous tokenizer, such as that of configs/digits/kl.py: ``sample_posterior:True`` draws x0 from the
Gaussian of each latent.

900 steps took 54 to 65 seconds of CPU time with one thread (three seeds, on the tokenizer of ``make demo``). A classifier
assigns 100 % of 300 digits to the class asked for, 96 to 97 % without guidance. Expected: at least 97 and 88 %.

Options: those of digits.py, ``latents`` (the folder above).
"""

from vq.recipes import digits_diffusion

_export_ = digits_diffusion(_kwargs_, latents='work_dirs/latents/digits', mirror=False, gives='codes')
