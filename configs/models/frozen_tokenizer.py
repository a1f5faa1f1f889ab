"""A trained, frozen tokenizer, for configs that train another model on top of it and load this file.

One of three options selects the tokenizer:

- ``tokenizer_run``: any argument of ``vq.load``, that is the NAME or folder of a run, one of its checkpoints, a converted
  file, or a published tokenizer of the catalog. Config and weights are read from it.
- ``it_config`` and ``it_state_dict``: the config that trained the tokenizer, and a run, checkpoint or converted file with the
  weights. Without ``it_state_dict`` a command takes the weights from --load-model-from. Options are passed to that config too,
  except ``image_size``, which is the size of the input images of the new model.
- ``ir_config`` and ``ir_state_dict``: likewise for a tokenizer with a new decoder, trained by ../decoder. ``it_config`` and
  ``it_state_dict`` then select the inner tokenizer, unless ``ir_config`` is the config in a run folder, which has it already.

``vq.config FILE --options``, of a config that loads this file, prints all options.

The result has ``part`` (the FrozenTokenizer), ``tiny`` (its overrides in the tiny form), ``metrics`` and ``tiny_metrics`` (of
the codebook, from the tokenizer's validator), and ``custom_imports``.
"""

from vq.recipes import frozen_tokenizer

_export_ = vars(frozen_tokenizer(_kwargs_))
