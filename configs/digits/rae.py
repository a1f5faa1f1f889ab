"""A representation autoencoder of handwritten digits: the features of a frozen classifier, and a ViT decoder of them.

    auto_torchrun -m vq.train ic/digits configs/ic/digits.py
    auto_torchrun -m vq.train digits_rae configs/digits/rae.py

8 x 8 latents of 64 channels, disturbed in training by noise of tau 0.8. 700 steps took 549 seconds on one of 2 CPU cores
shared with many other programs, 121 seconds of CPU time. Measured on the 180 validation digits, one seed: 24.7 dB PSNR, SSIM
0.89. Digits are legible, with faint borders between patches. Not tuned: digits/kl.py, trained for pixels alone, reaches 37.1.

Options: ``perturbation`` (GaussianNoise, tau 0.8), ``train_teacher`` (False), ``dim`` (128), ``depth`` (4).
"""

from vq.recipes import digits_rae

_export_ = digits_rae(_kwargs_)
