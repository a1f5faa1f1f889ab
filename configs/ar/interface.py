"""A generator of tokens: what every autoregressive and masked model shares.

    image -> frozen tokenizer -> tokens, once; class, tokens -> generator -> cross entropy

Which tokenizer: ``tokenizer_run``, ``ir_config`` (with ``ir_state_dict``, ``it_state_dict``) or ``it_config`` (with
``it_state_dict``); see ../models/frozen_tokenizer.py. Its tokens are written once, before the first step, into the folder of
the run. Options for that: ``tokens`` (a folder to share between runs, or what vq.tasks.image_tokenization.tokenize wrote),
``variants`` (('center', 'flip')), ``on_the_fly`` (False; True: tokenise augmented images in every step).

Which generator: ``generator`` (a whole dict), ``method`` (masked: a MaskedGenerator, and its own options), or

- ``network`` (llama; or gpt2, hf_llama, hf_gpt2), ``dim``, ``depth``, ``heads``, or ``size`` (B, L, XL, XXL, 3B) in their
  place; with llama ``kv_heads``, ``ffn_dim``, ``rope`` (grid; line: what Hugging Face's Llama knows), ``dropout`` (0.1)
- with hf_llama and hf_gpt2 further ``settings`` of the package's config, and ``network_weights``, a folder of its weights
- ``vocabulary`` (prefix: the class has an embedding of its own; joint: classes are ids of the network)
- ``num_classes`` (1000; 0: unconditional), ``label_drop`` (0.1), ``predicts`` (segment; vocabulary: the loss of a language
  model over all ids)

How it is drawn from: ``sampler`` (Multinomial), ``guidance`` (constant, 1.75), ``draws`` (what validation draws).

Others: ``iters`` (250,000), ``batch_size`` (256 in total), ``lr`` (1e-4), ``betas``, ``weight_decay``, ``label_smoothing``,
``ema`` (None), ``evaluate`` (25,000), ``reference`` (of FID), ``features`` (the feature network; None: no such figures),
``dataset`` (imagenet), ``image_size`` (256), ``strategy`` (ddp), ``precision`` (bf16).
"""

from vq.recipes import token_generator

_export_ = token_generator(_kwargs_)
