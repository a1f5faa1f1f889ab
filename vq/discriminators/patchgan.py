"""The patch discriminator of pix2pix and VQGAN."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from vq.core.errors import ConfigError, UserError
from vq.interfaces import Discriminator
from vq.nn.act_norm import ActNorm
from vq.nn.batch_norm import BatchNorm
from vq.nn.norms import make_norm
from vq.registries import VQDiscriminatorRegistry

PatchNorm = Literal['batch', 'group', 'act', 'none']


@VQDiscriminatorRegistry.register_()
class PatchGAN(Discriminator):
    """image (B, in_channels, H, W) -> logits (B, 1, h, w), one per patch (Isola et al. 2017).

    ``depth`` convolutions of stride 2 with ``width`` times 1, 2, 4, ... channels, one of stride 1, and one to a single
    channel; leaky ReLU between them, norms on all but the first and the last. The defaults are VQGAN's discriminator,
    whose patches are 70 pixels wide; ``depth=2`` is dd2 of the reference toolkit.

    - ``max_multiplier``: channels stop growing at this many times ``width``.
    - ``synchronized``: batch norm over the batches of all ranks instead of each rank's own.
    - ``slope``: slope of the leaky ReLU below zero.
    - ``norm_groups``: groups of group norm; for a width that this does not divide, the next smaller number that does.
    """

    def __init__(
        self,
        in_channels: int = 3,
        width: int = 64,
        depth: int = 3,
        max_multiplier: int = 8,
        norm: PatchNorm = 'batch',
        synchronized: bool = False,
        kernel_size: int = 4,
        slope: float = 0.2,
        norm_groups: int = 32,
    ) -> None:
        super().__init__()
        if min(width, depth, max_multiplier) < 1 or kernel_size < 2 or not 0 <= slope <= 1:
            raise ConfigError(
                f'PatchGAN of width {width}, depth {depth}, max_multiplier {max_multiplier}, kernel_size {kernel_size}, '
                f'slope {slope}',
                'Give width, depth and max_multiplier from 1 up, kernel_size from 2 up, slope between 0 and 1.',
            )
        if synchronized and norm != 'batch':
            raise ConfigError(f"synchronized has no meaning for norm '{norm}'", "Leave it out, or use norm='batch'.")
        self.depth, self.slope = depth, slope
        padding = (kernel_size - 1) // 2
        widths = [width * min(2**index, max_multiplier) for index in range(depth + 1)]
        strides = [2] * (depth - 1) + [1]

        self.stem = nn.Conv2d(in_channels, width, kernel_size, stride=2, padding=padding)
        self.blocks = nn.ModuleList()
        for before, after, stride in zip(widths[:-1], widths[1:], strides, strict=True):
            conv = nn.Conv2d(before, after, kernel_size, stride=stride, padding=padding, bias=norm != 'batch')
            self.blocks.append(PatchBlock(conv, make_patch_norm(after, norm, synchronized, norm_groups), slope))
        self.head = nn.Conv2d(widths[-1], 1, kernel_size, padding=padding)

        self.smallest = 1  # side of the smallest image that has a patch
        for stride in reversed([2, *strides, 1]):
            self.smallest = max(1, (self.smallest - 1) * stride + kernel_size - 2 * padding)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Convolutions from N(0, 0.02), norm weights from N(1, 0.02), biases 0."""
        for part in self.modules():
            if isinstance(part, nn.Conv2d):
                nn.init.normal_(part.weight, 0.0, 0.02)
                if part.bias is not None:
                    nn.init.zeros_(part.bias)
            elif isinstance(part, (BatchNorm, nn.GroupNorm)):
                part.reset_parameters()
                nn.init.normal_(part.weight, 1.0, 0.02)
            elif isinstance(part, ActNorm):
                part.reset_parameters()

    def forward(self, image: Tensor) -> Tensor:
        height, width = image.shape[-2:]
        if min(height, width) < self.smallest:
            raise UserError(
                f'images of {height} x {width} pixels are too small for PatchGAN of depth {self.depth}: no patch is left',
                f'Use images of {self.smallest} pixels or more, or a smaller depth.',
            )
        h = F.leaky_relu(self.stem(image), self.slope, inplace=True)
        for block in self.blocks:
            h = block(h)
        logits: Tensor = self.head(h)
        return logits


class PatchBlock(nn.Module):
    """Convolution, norm, leaky ReLU: (B, C, H, W) -> (B, C', H / stride, W / stride) about."""

    def __init__(self, conv: nn.Conv2d, norm: nn.Module, slope: float) -> None:
        super().__init__()
        self.conv, self.norm, self.slope = conv, norm, slope

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(self.norm(self.conv(x)), self.slope, inplace=True)  # no norm's backward reads its output


def make_patch_norm(channels: int, kind: PatchNorm, synchronized: bool, groups: int) -> nn.Module:
    if kind == 'batch':
        return BatchNorm(channels, synchronized=synchronized)
    if kind == 'group':
        return make_norm(channels, groups=groups)
    return ActNorm(channels) if kind == 'act' else nn.Identity()
