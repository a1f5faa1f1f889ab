"""Handwritten digits by the Llama of the package transformers in place of our own, over one joint vocabulary.

    auto_torchrun -m vq.train digits configs/digits/vq_ema.py
    auto_torchrun -m vq.train digits_hf_llama configs/digits/ar_hf_llama.py --config-options tokenizer_run::digits

600 steps took 106 seconds on one of 2 shared CPU cores (97 seconds of CPU time). Measured once, seed 3407, on the tokenizer of
``make demo``: the classifier of ../ic/digits.py assigns 89.8 % of 500 digits to the requested class (86 % without guidance).

Options: those of ar.py. Here the guidance scale grows along the sequence, and sampling is top-k with k = 40.
"""

from vq.recipes import digits_generator

drawing = dict(guidance=dict(type='CosineGuidance', scale=3.0), sampler=dict(type='Multinomial', top_k=40))
_export_ = digits_generator(_kwargs_, network='hf_llama', vocabulary='joint', **drawing)
