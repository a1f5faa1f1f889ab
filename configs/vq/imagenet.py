"""A VQ autoencoder on ImageNet, 256 pixels, 16 x 16 tokens, 1,024 codes: the ground the VQGAN family stands on.

    auto_torchrun -m vq.train vq/imagenet configs/vq/imagenet.py
    auto_torchrun -m vq.val   vq/imagenet configs/vq/imagenet.py

Hardware and hours: not measured. Expected figures: none; nobody has trained this configuration, and without adversarial
and perceptual losses its pictures are blurred. Options: ``vq.config FILE --options`` prints them.
"""

from vq.recipes import autoencoder

_export_ = autoencoder(_kwargs_, dataset='imagenet')
