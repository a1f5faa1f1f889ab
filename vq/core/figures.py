"""Which figures of an evaluation are better if they are higher, and which if they are lower."""

from __future__ import annotations

import re

LOWER = r'(.*_)?(fid|sfid|kid|cmmd|l1|l2|mse)|lpips.*'
HIGHER = r'(.*_)?(inception_score|precision|recall|density|coverage|psnr|ssim|ssim_uniform)|(top|accuracy).*'


def direction(name: str) -> int:
    """1 if a higher figure is better, -1 if a lower one is, 0 if unknown."""
    if re.fullmatch(LOWER, name):
        return -1
    return 1 if re.fullmatch(HIGHER, name) else 0
