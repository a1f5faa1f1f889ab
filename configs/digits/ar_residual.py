"""Handwritten digits with residual codes: 16 cells of 4 tokens each, drawn one after the other, by a small GPT-2.

    auto_torchrun -m vq.train  digits_residual configs/digits/residual.py
    auto_torchrun -m vq.train  digits_ar_residual configs/digits/ar_residual.py --config-options tokenizer_run::digits_residual
    auto_torchrun -m vq.sample digits_ar_residual configs/digits/ar_residual.py --config-options \\
        tokenizer_run::digits_residual --load-model-from work_dirs/digits_ar_residual

Hours, or rather minutes: not measured beyond its tiny form; expected are digits of no class in particular.

Options: those of ar.py; here without classes (``num_classes`` 0) and with ``network`` gpt2.
"""

_kwargs_.setdefault('it_config', 'configs/digits/residual.py')
_kwargs_.setdefault('network', 'gpt2')
_kwargs_.setdefault('num_classes', 0)
_kwargs_.setdefault('guidance', dict(type='ConstantGuidance', scale=1.0))
_kwargs_.setdefault('label_drop', 0.0)

_base_ = ['ar.py']
