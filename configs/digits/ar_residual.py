"""Handwritten digits with residual codes: 16 cells of 4 tokens each, drawn one after the other, by a small GPT-2.

    auto_torchrun -m vq.train  digits_residual configs/digits/residual.py
    auto_torchrun -m vq.train  digits_ar_residual configs/digits/ar_residual.py --config-options tokenizer_run::digits_residual
    auto_torchrun -m vq.sample digits_ar_residual configs/digits/ar_residual.py --config-options \\
        tokenizer_run::digits_residual --load-model-from work_dirs/digits_ar_residual

Training takes minutes; measured only in the tiny form. Expected: digits of random classes.

Options: those of ar.py. The defaults here are no classes (``num_classes`` 0) and ``network`` gpt2.
"""

from vq.recipes import digits_generator

no_classes = dict(num_classes=0, label_drop=0.0, guidance=dict(type='ConstantGuidance', scale=1.0))
_export_ = digits_generator(_kwargs_, it_config='configs/digits/residual.py', network='gpt2', **no_classes)
