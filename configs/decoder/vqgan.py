"""A VQGAN decoder for the tokens of a frozen tokenizer, with the recipe of vqgan/8192_dd2_aglwg075_imagenet_ddp.py.

    auto_torchrun -m vq.train decoder/vqgan/mine configs/decoder/vqgan.py --config-options tokenizer_run::NAME
    auto_torchrun -m vq.val   decoder/vqgan/mine configs/decoder/vqgan.py --config-options tokenizer_run::NAME

or, with config and weights of the tokenizer given separately:

    auto_torchrun -m vq.train decoder/vqgan/mine configs/decoder/vqgan.py \\
        --config-options it_config::configs/vqgan/8192_imagenet_ddp.py [decoder::vqkd] --load-model-from TOKENIZER

256 pixels, 16 x 16 tokens, 260,000 steps of 96 images. Hardware and hours: not measured here, and published nowhere; the
encoder has no backward pass, so a step is faster than one of the whole tokenizer. Expected figures: none; the paper of this
recipe quotes generation only. This config was never trained to its end.
"""

from vq.recipes import pixel_decoder

_export_ = pixel_decoder(_kwargs_, ir_config='configs/vqgan/8192_dd2_aglwg075_imagenet_ddp.py')
