"""Handwritten digits by diffusion on cached latents: digits.py without images and encoder in the training steps.

    auto_torchrun -m vq.train digits_kl configs/digits/kl.py
    python -m vq.tools.latents digits_kl --load-model-from digits_kl
    vq data latents work_dirs/digits_kl --load-model-from work_dirs/digits_kl_latents/tokenizer.safetensors \\
        --output-folder work_dirs/latents/digits_kl --no-mirror
    auto_torchrun -m vq.train digits_cached configs/diffusion/digits_cached.py --config-options \\
        tokenizer_run::work_dirs/digits_kl_latents/tokenizer.safetensors

Training takes minutes; measured only in the tiny form. Expected: what digits.py reaches on the same tokenizer.

Options: those of digits.py, ``latents`` (the folder above).
"""

from vq.recipes import digits_diffusion

cache = dict(latents='work_dirs/latents/digits_kl', mirror=False, sample_posterior=True)
_export_ = digits_diffusion(_kwargs_, it_config='configs/digits/kl.py', gives='codes', **cache)
