"""A pixel decoder for the tokens of a frozen tokenizer: whatever trains a tokenizer trains a decoder alone.

    image x -> frozen encoder -> frozen codes -> z -> pre_decode -> decoder -> x'
    decoder:        the pixel losses and the adversarial term of ``ir_config``
    discriminator:  as there

Options, of the frozen side: ``tokenizer_run``, or ``it_config`` and ``it_state_dict``; see ../models/frozen_tokenizer.py.

Of the side that learns:

- ``ir_config`` (../vqgan/8192_dd2_aglwg075_imagenet_ddp.py): a config of the image tokenization task. Its decoder, connector,
  losses, discriminator, optimizers, data, callbacks and metrics are taken, and its options are options here: ``image_size``,
  ``data_root``, ``batch_size``, ``iters``, ``strategy``, and so on.
- ``decoder``: vqgan (that of ``ir_config``); vqkd (a ViTDecoder of 12 layers, 768 wide); vqkd_large (32 layers, 1280 wide); or
  a dict(type=...). ``patch`` (16) is that of a ViTDecoder.
- ``width``, ``multipliers``, ``refine``: of the new decoder; ``it_config`` does not see them.

Images are as large as ``ir_config`` says. What a token stands for must agree: 16 x 16 pixels with ``multipliers`` (1, 1, 2, 2,
4) and with ``patch`` 16, 8 x 8 with (1, 1, 2, 4) and with 8.
"""

from vq.recipes import pixel_decoder

_export_ = pixel_decoder(_kwargs_)
