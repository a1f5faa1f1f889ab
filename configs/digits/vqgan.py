"""VQGAN's recipe on digits: the EMA tokenizer of vq_ema.py with a small discriminator, from halfway through the run.

    auto_torchrun -m vq.train digits_gan configs/digits/vqgan.py

The smallest config of adversarial training. 700 steps took 130 to 175 seconds on one of 2 shared CPU cores. Measured, seed
3407, on the validation digits: 31.35 dB with gain 0.1, 31.22 dB with gain 0.3, 31.44 dB without a discriminator (vq_ema.py,
same machine), 100 % of the codes in use each time. The reconstructions look alike, as digits of 8 x 8 original pixels have no
fine texture that a discriminator could add. So the demo trains without a discriminator.

Options: ``gain`` (0.1) and ``start`` (350) of the adversarial term, and those of vq_ema.py.
"""

from vq.recipes import digits_gan

_export_ = digits_gan(_kwargs_)
