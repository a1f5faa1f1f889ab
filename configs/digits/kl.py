"""A continuous autoencoder for diffusion models: every cell is a Gaussian of 8 channels in place of a code.

    auto_torchrun -m vq.train digits_kl configs/digits/kl.py

700 steps took 295 seconds on one of 2 CPU cores shared with many other programs (load 10), 85 seconds of CPU time. Measured on
the 180 validation digits, one seed: 37.1 dB PSNR from the means, which are not quantized; KL divergence in training: 436 nats
per image. Not tuned.

Options: ``latent_channels`` (8), ``kl_weight`` (1e-6), and those that ``vq.config FILE --options`` prints.
"""

from vq.recipes import digits_kl

_export_ = digits_kl(_kwargs_)
