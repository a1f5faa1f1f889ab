"""Handwritten digits by an autoregressive energy transformer (DEBT): each token descends its energy, given those before it.

    auto_torchrun -m vq.train digits_kl configs/digits/kl.py
    python -m vq.tools.latents digits_kl --load-model-from digits_kl
    auto_torchrun -m vq.train digits_debt configs/mar/digits_debt.py --config-options \\
        tokenizer_run::work_dirs/digits_kl_latents/tokenizer.safetensors

The sizes of the fork are ``dim``/``depth`` 384/6, 768/24, 1024/32 and 1280/40. Training takes minutes; measured only in the
tiny form. Expected: blurred digits, as the loss is a squared error.

Options: those of digits.py.
"""

from vq.recipes import digits_mar

small = dict(tiny_generator=dict(dim=32, depth=1, heads=2))
_export_ = digits_mar(_kwargs_, generator=dict(type='DEBT', dim=128, depth=6, heads=4), **small)
