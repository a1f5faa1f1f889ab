"""The tokenizer of ``make demo``: vq_ema.py on the CPU, with more frequent logs and checkpoints.

    python -m vq.demo

The whole demo, with the classifier of ../ic/digits.py (trained at the same time as the tokenizer) and the generator of ar.py,
took 216 seconds on 2 otherwise idle CPU cores, each training with one thread. Expected, and measured with seeds 3407, 1, 2:
31.3, 31.1, 31.6 dB PSNR on the 180 validation digits (31.5, 31.1, 31.5 dB on the 180 test digits), 100, 99.6, 99.6 % of the
codes in use (99.6 % with seed 3407 and one thread). k-means on raw patches, in the same report: 25.0 dB. Settings were chosen
on a held-out part of the training split, with other seeds. ar.py has the figures of the generator.
"""

from vq.recipes import digits_tokenizer

_export_ = digits_tokenizer(_kwargs_, log_every=20, alarm_every=100, save_every=100, keep_last=None, device='cpu')
