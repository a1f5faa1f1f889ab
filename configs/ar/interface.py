"""A token generator, for configs of autoregressive and masked models.

    image -> frozen tokenizer -> tokens, once; class, tokens -> generator -> cross entropy

The tokenizer is ``tokenizer_run``, ``ir_config`` (with ``ir_state_dict``, ``it_state_dict``) or ``it_config`` (with
``it_state_dict``); see ../models/frozen_tokenizer.py. The tokens are written into the run folder once, before the first step.
``vq.config FILE --options`` prints the options of tokens, generator, sampling and training.
"""

from vq.recipes import token_generator

_export_ = token_generator(_kwargs_)
