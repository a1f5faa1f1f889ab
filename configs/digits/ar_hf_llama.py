"""Handwritten digits by the Llama of the package transformers, in the place of our own, over one vocabulary.

    auto_torchrun -m vq.train digits configs/digits/vq_ema.py
    auto_torchrun -m vq.train digits_hf_llama configs/digits/ar_hf_llama.py --config-options tokenizer_run::digits

Seconds and figures: not measured yet; expected is what ar.py reaches.

Options: those of ar.py. Guidance grows along the sequence here, and tokens are drawn from the 40 likeliest.
"""

_kwargs_.setdefault('network', 'hf_llama')
_kwargs_.setdefault('vocabulary', 'joint')
_kwargs_.setdefault('guidance', dict(type='CosineGuidance', scale=3.0))
_kwargs_.setdefault('sampler', dict(type='Multinomial', top_k=40))

_base_ = ['ar.py']
