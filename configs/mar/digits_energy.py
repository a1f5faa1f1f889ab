"""Handwritten digits by MAR with the energy head of its fork: tokens descend an energy of all hidden tokens.

    auto_torchrun -m vq.train digits_kl configs/digits/kl.py
    python -m vq.tools.latents digits_kl --load-model-from digits_kl
    auto_torchrun -m vq.train digits_mar_energy configs/mar/digits_energy.py --config-options \\
        tokenizer_run::work_dirs/digits_kl_latents/tokenizer.safetensors

Training takes minutes; measured only in the tiny form. Expected: worse digits than those of digits.py, as the head has one
number for all tokens. Guidance has the fork's form, (1 + s) g_c - s g_u.

Options: those of digits.py.
"""

from vq.recipes import digits_mar

head = dict(head=dict(type='EnergyTokenHead', width=192, depth=3), tiny_head=dict(width=32, depth=1))
_export_ = digits_mar(_kwargs_, **head)
