"""VQGAN with a Gumbel-softmax codebook: 256 pixels, 32 x 32 tokens, 8,192 codes of 256 channels.

    auto_torchrun -m vq.train vqgan/gumbel_f8_8192_imagenet_ddp configs/vqgan/gumbel_f8_8192_imagenet_ddp.py
    auto_torchrun -m vq.val   vqgan/gumbel_f8_8192_imagenet_ddp configs/vqgan/gumbel_f8_8192_imagenet_ddp.py

The temperature is annealed from 1 to 1/16 over the run along half a cosine. Hardware and hours: not measured here, and
published nowhere. Expected, quoted from the taming-transformers README for its model of this shape, trained on OpenImages:
rFID 1.49. Its weights: python -m vq.tools.prepare_checkpoints taming-gumbel-f8. This config was never trained to its end.
"""

from vq.recipes import cooling, vqgan

codes = dict(codebook_size=8192, quantizer=dict(type='GumbelQuantizer', kl_weight=5e-4))
_export_ = vqgan(_kwargs_, multipliers=(1, 1, 2, 4), **codes, callbacks=dict(temperature=cooling()))
