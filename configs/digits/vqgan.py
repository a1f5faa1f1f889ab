"""The EMA tokenizer of vq_ema.py against a small discriminator from half of the run on: VQGAN's recipe on digits.

    auto_torchrun -m vq.train digits_gan configs/digits/vqgan.py

The smallest place to try adversarial training in. 700 steps took 130 to 175 seconds on one of 2 shared CPU cores. Measured,
seed 3407, on the validation digits: 31.35 dB with gain 0.1, 31.22 dB with gain 0.3, 31.44 dB without a discriminator
(vq_ema.py, same machine), 100 % of the codes in use each time. The pictures look alike: digits of 8 x 8 original pixels hold
no texture that a discriminator could miss, so the demo trains without one.

Options: ``gain`` (0.1) and ``start`` (350) of the adversarial term, those of vq_ema.py.
"""

from vq.recipes import digits_gan

_export_ = digits_gan(_kwargs_)
