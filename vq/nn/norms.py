"""Group norms of the convolutional autoencoders."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from vq.nn.batch_norm import BatchNorm
from vq.nn.precision import no_autocast

NormKind = Literal['group', 'group_unbiased', 'batch']


def group_count(channels: int, most: int = 32) -> int:
    """The largest number of groups up to ``most`` that divides the channels: 32 for usual widths, less for tiny ones."""
    return next(count for count in range(min(most, channels), 0, -1) if channels % count == 0)


class UnbiasedGroupNorm(nn.GroupNorm):
    """Group norm that divides by the count minus one: y = (x - mean) / sqrt(sum((x - mean)^2) / (n - 1) + eps)."""

    def forward(self, input: Tensor) -> Tensor:
        with no_autocast(input.device):
            groups = input.float().reshape(input.shape[0], self.num_groups, -1)  # (B, G, n)
            variance, mean = torch.var_mean(groups, dim=2, correction=1, keepdim=True)
            normal = ((groups - mean) * torch.rsqrt(variance + self.eps)).reshape(input.shape)
            shape = (1, -1) + (1,) * (input.dim() - 2)
            scaled: Tensor = normal * self.weight.view(shape) + self.bias.view(shape)
            return scaled


class AdaptiveGroupNorm(nn.Module):
    """y = gamma(std_z) norm(x) + beta(mean_z): a group norm with scale and shift computed from the statistics of a map z.

    (Open-MAGVIT2, after StyleGAN's adaptive instance norm.) mean_z and std_z are over the cells of z (B, D, h, w); gamma and
    beta are linear layers from D to the C channels of x (B, C, H, W).
    """

    def __init__(self, style_channels: int, channels: int, groups: int = 32) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(group_count(channels, groups), channels, eps=1e-6, affine=False)
        self.gamma = nn.Linear(style_channels, channels)
        self.beta = nn.Linear(style_channels, channels)

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        variance, mean = torch.var_mean(z.float().flatten(2), dim=2)  # (B, D) each
        scale, shift = self.gamma((variance + 1e-6).sqrt()), self.beta(mean)
        y: Tensor = scale[:, :, None, None] * self.norm(x) + shift[:, :, None, None]
        return y


def make_norm(channels: int, kind: NormKind = 'group', groups: int = 32) -> nn.GroupNorm | BatchNorm:
    """The norm of a block over (B, channels, H, W). 'batch': over the batches of all ranks."""
    if kind == 'batch':
        return BatchNorm(channels, eps=1e-5, synchronized=True)
    norm = nn.GroupNorm if kind == 'group' else UnbiasedGroupNorm
    return norm(group_count(channels, groups), channels, eps=1e-6)
