"""A generator of tokens: what every autoregressive and masked model shares.

    image -> frozen tokenizer -> tokens, once; class, tokens -> generator -> cross entropy

Which tokenizer: ``tokenizer_run``, ``ir_config`` (with ``ir_state_dict``, ``it_state_dict``) or ``it_config`` (with
``it_state_dict``); see ../models/frozen_tokenizer.py. Its tokens are written once, before the first step, into the folder of
the run. ``vq.config FILE --options`` prints the options: of the tokens, the generator, how it is drawn from, and training.
"""

from vq.recipes import token_generator

_export_ = token_generator(_kwargs_)
