"""Bilinear resizing as in TensorFlow 1, by which the FID of the literature is defined."""

from __future__ import annotations

import torch
from torch import Tensor


def _taps(size: int, target: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """For each target pixel its two neighbours, (target,) int64 each, and the weight of the second, fp32 as in TensorFlow."""
    place = torch.arange(target, device=device, dtype=torch.float32) * (size / target)
    low = place.floor()
    return low.long(), (low.long() + 1).clamp_max(size - 1), place - low


def resize_like_tensorflow(x: Tensor, size: int) -> Tensor:
    """(B, C, H, W) float -> (B, C, size, size): pixel i comes from i H / size, corners aligned at the top left.

    No antialiasing, and half a pixel off centre; ``tf.image.resize_bilinear`` without ``align_corners``.
    """
    if x.shape[-2:] == (size, size):
        return x
    top, bottom, weight = _taps(x.shape[-2], size, x.device)
    x = torch.lerp(x[:, :, top], x[:, :, bottom], weight[:, None])
    left, right, weight = _taps(x.shape[-1], size, x.device)
    return torch.lerp(x[..., left], x[..., right], weight)
