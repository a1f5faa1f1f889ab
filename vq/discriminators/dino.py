"""A discriminator on the features of a frozen vision transformer."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vq.core.errors import ConfigError
from vq.interfaces import Discriminator, Teacher
from vq.nn.norms import group_count
from vq.nn.precision import no_autocast
from vq.nn.spectral import SpectralConv1d
from vq.registries import VQDiscriminatorRegistry

SLOPE = 0.2  # of the leaky ReLU
EPS = 1e-6
ROOT_HALF = 1 / math.sqrt(2)  # keeps the power of a sum of two

TokenNorm = Literal['batch', 'group', 'none']


@VQDiscriminatorRegistry.register_()
class DINODiscriminator(Discriminator):
    """image (B, 3, H, W) -> logits (B, n L): one for each of the L patches and each of the n layers of the teacher.

        f_l = teacher's patches after block l;  h = block_1(f_l);  h = (h + block_k(h)) / sqrt(2);  logits = conv_1(h)

    (Sauer et al. 2023, StyleGAN-T, after projected GANs; the discriminator of VAR's and later tokenizers.) A block is a
    convolution of kernel 1 or ``kernel_size`` over the sequence of patches, a norm, and a leaky ReLU. All convolutions have
    spectral norm. Only these heads are trained: the teacher has no gradients, is in no optimizer and in no checkpoint, and
    gradients pass through it to the images.

    - ``layers``: numbers of the teacher's blocks, one head each; None: four, evenly spaced, the last block among them.
    - ``image_size``: the sides to which images are resized for the teacher (bilinear, antialiased). None: each side of the
      image, rounded to a multiple of the teacher's patch.
    - ``norm``: 'batch' takes statistics over groups of up to ``group_size`` images and their patches, in eval too, as in the
      papers. 'group' is a group norm: then no image influences another, which R1 assumes.
    """

    compiles = 'judge'

    def __init__(
        self,
        teacher: Teacher,
        layers: tuple[int, ...] | None = None,
        image_size: int | None = None,
        kernel_size: int = 9,
        norm: TokenNorm = 'batch',
        group_size: int = 8,
    ) -> None:
        super().__init__()
        blocks = tuple(layers) if layers is not None else spaced(teacher.depth)
        self.widths = [teacher.channels((block,)) for block in blocks]  # refuses blocks that the teacher does not have
        if kernel_size < 1 or kernel_size % 2 == 0 or group_size < 1:
            raise ConfigError(
                f'DINODiscriminator has kernel_size {kernel_size} and group_size {group_size}',
                'Give an odd kernel_size, and group_size from 1 up.',
            )
        if image_size is not None and image_size % teacher.patch_size:
            raise ConfigError(
                f'DINODiscriminator has image_size {image_size}, and the teacher patches of {teacher.patch_size} pixels',
                f'Give a multiple of {teacher.patch_size}, or None.',
            )
        self.teacher, self.layers, self.image_size = teacher, blocks, image_size
        self.heads = nn.ModuleList(Head(width, kernel_size, norm, group_size) for width in self.widths)

    def forward(self, image: Tensor) -> Tensor:
        return self.judge(self._resized(image.float()))

    def judge(self, image: Tensor) -> Tensor:
        """Images of a size that the teacher takes -> logits (B, n L)."""
        maps = self.teacher.features(image, self.layers).patches.flatten(2)  # (B, n C, L)
        parts = torch.split(maps, self.widths, dim=1)
        logits = [head(part) for head, part in zip(self.heads, parts, strict=True)]
        return torch.cat(logits, dim=1)

    def _resized(self, image: Tensor) -> Tensor:
        patch = self.teacher.patch_size
        wanted = [self.image_size or max(1, round(side / patch)) * patch for side in image.shape[-2:]]
        if [*image.shape[-2:]] == wanted:
            return image
        return F.interpolate(image, wanted, mode='bilinear', antialias=True)


class Head(nn.Module):
    """Tokens (B, C, L) -> logits (B, L)."""

    def __init__(self, channels: int, kernel_size: int, norm: TokenNorm, group_size: int) -> None:
        super().__init__()
        self.first = Block(channels, 1, norm, group_size)
        self.second = Block(channels, kernel_size, norm, group_size)
        self.out = SpectralConv1d(channels, 1)

    def forward(self, tokens: Tensor) -> Tensor:
        h = self.first(tokens)
        h = (h + self.second(h)) * ROOT_HALF
        logits: Tensor = self.out(h)
        return logits.squeeze(1)


class Block(nn.Module):
    """Convolution with spectral norm, norm, leaky ReLU: (B, C, L) -> (B, C, L)."""

    def __init__(self, channels: int, kernel_size: int, norm: TokenNorm, group_size: int) -> None:
        super().__init__()
        self.conv = SpectralConv1d(channels, channels, kernel_size)
        self.norm = make_token_norm(channels, norm, group_size)

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(self.norm(self.conv(x)), SLOPE)


class LocalBatchNorm(nn.Module):
    """(B, C, L) -> (B, C, L): the statistics of a channel are over a group of images and their tokens, in eval too.

    There are no running statistics. For a batch that ``group_size`` does not divide, groups are the next smaller size that
    does. The images of a group are of one rank.
    """

    def __init__(self, channels: int, group_size: int) -> None:
        super().__init__()
        self.group_size = group_size
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def reset_parameters(self) -> None:
        nn.init.ones_(self.weight)
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        with no_autocast(x.device):
            batch, channels, length = x.shape
            size = next(size for size in range(min(self.group_size, batch), 0, -1) if batch % size == 0)
            groups = x.float().reshape(batch // size, size, channels, length)
            variance, mean = torch.var_mean(groups, dim=(1, 3), correction=0, keepdim=True)
            normal = ((groups - mean) * torch.rsqrt(variance + EPS)).view_as(x)
            return normal * self.weight[:, None] + self.bias[:, None]


def make_token_norm(channels: int, kind: TokenNorm, group_size: int) -> nn.Module:
    if kind == 'batch':
        return LocalBatchNorm(channels, group_size)
    return nn.GroupNorm(group_count(channels), channels, eps=EPS) if kind == 'group' else nn.Identity()


def spaced(depth: int, count: int = 4) -> tuple[int, ...]:
    """The last blocks of up to ``count`` equal parts of a network: 2, 5, 8, 11 of 12."""
    count = min(count, depth)
    return tuple((index + 1) * depth // count - 1 for index in range(count))
