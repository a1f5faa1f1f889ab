"""A continuous autoencoder: every cell is a Gaussian of 8 channels, there are no codes. What diffusion models learn from.

    auto_torchrun -m vq.train digits_kl configs/digits/kl.py

700 steps took 295 seconds on one of 2 CPU cores that many other programs shared (load 10), 85 seconds of CPU time. Measured on
the 180 validation digits, one seed: 37.1 dB PSNR from the means, which nothing rounds; 436 nats of divergence an image in
training. Not tuned.

Options: ``latent_channels`` (8), ``kl_weight`` (1e-6), and those that ``vq.config FILE --options`` prints.
"""

from vq.recipes import digits_kl

_export_ = digits_kl(_kwargs_)
