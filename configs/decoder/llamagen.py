"""LlamaGen's decoder for the tokens of a frozen tokenizer, with the recipe of llamagen/vqgan_imagenet_ddp.py.

    auto_torchrun -m vq.train decoder/llamagen/mine configs/decoder/llamagen.py --config-options tokenizer_run::NAME
    auto_torchrun -m vq.val   decoder/llamagen/mine configs/decoder/llamagen.py --config-options tokenizer_run::NAME

256 pixels, 16 x 16 tokens, 400,000 steps of 128 images, a discriminator from step 20,000 on. Hardware and hours: not measured
here; less than the 2 days on 8 A100 that the authors quote for the whole tokenizer. Expected figures: none are published for
a new decoder on a frozen tokenizer. This config was never trained to its end.
"""

from vq.recipes import pixel_decoder

_export_ = pixel_decoder(_kwargs_, ir_config='configs/llamagen/vqgan_imagenet_ddp.py')
