"""A pixel decoder for the tokens of a frozen tokenizer: whatever trains a tokenizer trains a decoder alone.

    image x -> frozen encoder -> frozen codes -> z -> pre_decode -> decoder -> x'
    decoder:        the pixel losses and the adversarial term of ``ir_config``
    discriminator:  as there

``vq.config FILE --options`` prints the options of both sides, frozen and learning. Those of ``ir_config`` are options too.

Images are as large as ``ir_config`` says. What a token stands for must agree: 16 x 16 pixels with ``multipliers`` (1, 1, 2, 2,
4) and with ``patch`` 16, 8 x 8 with (1, 1, 2, 4) and with 8.
"""

from vq.recipes import pixel_decoder

_export_ = pixel_decoder(_kwargs_)
