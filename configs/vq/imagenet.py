"""A VQ autoencoder on ImageNet, 256 pixels, 16 x 16 tokens, 1,024 codes: VQGAN's networks with an L1 loss alone.

    auto_torchrun -m vq.train vq/imagenet configs/vq/imagenet.py
    auto_torchrun -m vq.val   vq/imagenet configs/vq/imagenet.py

Hardware and hours: not measured. Expected figures: none; this configuration was never trained. Without adversarial and
perceptual losses reconstructions are blurred. Options: ``vq.config FILE --options`` prints them.
"""

from vq.recipes import autoencoder

_export_ = autoencoder(_kwargs_, dataset='imagenet')
