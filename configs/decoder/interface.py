"""A pixel decoder for the tokens of a frozen tokenizer, trained with the losses, data and runner of a tokenizer's config.

    image x -> frozen encoder -> frozen codes -> z -> pre_decode -> decoder -> x'
    decoder:        the pixel losses and the adversarial term of ``ir_config``
    discriminator:  that of ``ir_config``

``vq.config FILE --options`` prints the options of the frozen tokenizer and of the decoder. The options of ``ir_config`` are
options of this config too.

``ir_config`` sets the image size. Pixels per token must match the tokenizer. 16 x 16 pixels: ``multipliers`` (1, 1, 2, 2, 4),
or ``patch`` 16. 8 x 8 pixels: (1, 1, 2, 4), or 8.
"""

from vq.recipes import pixel_decoder

_export_ = pixel_decoder(_kwargs_)
