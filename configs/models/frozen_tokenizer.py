"""A trained tokenizer that stays as it is, for tasks that learn on top of it. Loaded by the families that do.

Which one is said in one of three ways:

- ``tokenizer_run``: what ``vq.load`` takes: the NAME or folder of a run, one of its checkpoints, a converted file, or a
  published tokenizer of the catalog. Its config and its weights are found there.
- ``it_config`` and ``it_state_dict``: the config that trained it, and a run, checkpoint or converted file with the weights.
  Without ``it_state_dict`` a command takes the weights from --load-model-from. Options reach that config too, all but
  ``image_size``, which is of the images to come.
- ``ir_config`` and ``ir_state_dict``: the same for a tokenizer with a new decoder, of ../decoder; ``it_config`` and
  ``it_state_dict`` then say which tokenizer is inside, where ``ir_config`` does not (the config in a run folder does).

``vq.config FILE --options``, of a config that loads this file, prints all options.

What comes out: ``part`` (the FrozenTokenizer) and ``tiny`` (what changes in it when tiny), ``metrics`` and ``tiny_metrics``
(of its codebook, as its own validator has them), ``custom_imports``.
"""

from vq.recipes import frozen_tokenizer

_export_ = vars(frozen_tokenizer(_kwargs_))
