"""The residual discriminator of StyleGAN2, in plain torch."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vq.core.errors import ConfigError, UserError
from vq.interfaces import Discriminator
from vq.nn.fir import Blur
from vq.nn.precision import no_autocast
from vq.registries import VQDiscriminatorRegistry

SLOPE = 0.2  # of the leaky ReLU
ROOT2 = math.sqrt(2.0)  # gain after a leaky ReLU, which halves the power of its input


@VQDiscriminatorRegistry.register_()
class StyleGAN2Discriminator(Discriminator):
    """image (B, in_channels, S, S) -> logits (B, 1) (Karras et al. 2020, the residual variant; S = ``image_size``).

    A 1x1 stem, residual blocks that halve the resolution down to 4x4, one channel with the standard deviation over a group of
    images, a 3x3 convolution and two linear layers. Weights are N(0, 1) and scaled by 1 / sqrt(fan in) in forward, so that
    all layers have the same effective learning rate. From the statistic of the group on, everything is fp32, also under
    autocast.

    Channels at resolution r are ``channel_base / r``, at most ``channel_max``.

    - ``group_size``: images per group for the statistic; for a batch that this does not divide, the next smaller number that
      does. The images of a group are of one rank.
    """

    def __init__(
        self,
        image_size: int = 256,
        in_channels: int = 3,
        channel_base: int = 32768,
        channel_max: int = 512,
        group_size: int = 4,
    ) -> None:
        super().__init__()
        if image_size < 8 or image_size & (image_size - 1):
            raise ConfigError(
                f'StyleGAN2Discriminator has image_size {image_size}', 'Give a power of two from 8 up: 64, 128, 256, ...'
            )
        if group_size < 1 or channel_max < 1 or channel_base < image_size:
            raise ConfigError(
                f'StyleGAN2Discriminator has channel_base {channel_base}, channel_max {channel_max}, group_size {group_size}',
                f'Give channel_base from image_size ({image_size}) up, channel_max and group_size from 1 up.',
            )
        self.image_size = image_size
        sizes = [image_size >> index for index in range(image_size.bit_length() - 2)]  # S, S / 2, ..., 4
        widths = [min(channel_base // size, channel_max) for size in sizes]
        self.stem = EqualizedConv(in_channels, widths[0], 1, gain=ROOT2)
        self.blocks = nn.Sequential(*map(DownBlock, widths[:-1], widths[1:]))
        self.head = Head(widths[-1], group_size)

    def reset_parameters(self) -> None:
        """Fill weights and filters; also called after a move off the meta device."""
        for part in self.modules():
            if isinstance(part, (EqualizedConv, EqualizedLinear, Blur)):
                part.reset_parameters()

    def forward(self, image: Tensor) -> Tensor:
        if image.shape[-2:] != (self.image_size, self.image_size):
            built, got = f'{self.image_size} x {self.image_size}', ' x '.join(map(str, image.shape[-2:]))
            raise UserError(
                f'StyleGAN2Discriminator was built for {built} pixels and got {got}',
                'Set its image_size to the size of the images, which must be square.',
            )
        logits: Tensor = self.head(self.blocks(leaky(self.stem(image))))
        return logits


class DownBlock(nn.Module):
    """y = (skip(blur(x)) + f(x)) / sqrt(2), (B, C, H, W) -> (B, C', H / 2, W / 2).

    f is a 3x3 convolution, a blur and a 3x3 convolution of stride 2, with activations. The skip path halves the resolution
    before its 1x1 convolution, so that it convolves a quarter of the cells and computes the blur only for them.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = EqualizedConv(in_channels, in_channels, 3, padding=1, gain=ROOT2)
        self.blur = Blur(padding=2)
        self.down = EqualizedConv(in_channels, out_channels, 3, stride=2, gain=ROOT2 / ROOT2)
        self.skip_blur = Blur(stride=2, padding=1)
        self.skip = EqualizedConv(in_channels, out_channels, 1, bias=False, gain=1 / ROOT2)

    def forward(self, x: Tensor) -> Tensor:
        h = leaky(self.conv(x))
        h = leaky(self.down(self.blur(h)))
        y: Tensor = self.skip(self.skip_blur(x)) + h
        return y


class Head(nn.Module):
    """(B, C, 4, 4) -> (B, 1)."""

    def __init__(self, channels: int, group_size: int) -> None:
        super().__init__()
        self.group_size = group_size
        self.conv = EqualizedConv(channels + 1, channels, 3, padding=1, gain=ROOT2)
        self.hidden = EqualizedLinear(channels * 4 * 4, channels, gain=ROOT2)
        self.out = EqualizedLinear(channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        with no_autocast(x.device):
            x = x.float()
            spread = group_deviation(x, self.group_size)
            x = torch.cat([x, spread[:, None, None, None].expand(-1, 1, *x.shape[2:])], dim=1)
            h = leaky(self.conv(x))
            logits: Tensor = self.out(leaky(self.hidden(h.flatten(1))))
            return logits


def group_deviation(x: Tensor, group_size: int) -> Tensor:
    """(B, C, H, W) -> (B,): the mean over channels and cells of the standard deviation over the images of a group.

    Of n groups, image i is in group i mod n, as in the published code.
    """
    batch = len(x)
    size = next(size for size in range(min(group_size, batch), 0, -1) if batch % size == 0)
    variance = x.reshape(size, batch // size, -1).var(dim=0, correction=0)  # (n, CHW)
    return (variance + 1e-8).sqrt().mean(dim=1).repeat(size)


def leaky(x: Tensor) -> Tensor:
    return F.leaky_relu(x, SLOPE, inplace=True)  # no layer's backward reads its own output


class EqualizedConv(nn.Module):
    """gain (w / sqrt(fan in) * x + b). Scaling the weights is cheap, and the gain commutes with a leaky ReLU."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        padding: int = 0,
        bias: bool = True,
        gain: float = 1.0,
    ) -> None:
        super().__init__()
        self.stride, self.padding, self.gain = stride, padding, gain
        self.scale = gain / math.sqrt(in_channels * kernel_size**2)
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.empty(out_channels)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.normal_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias * self.gain
        return F.conv2d(x, self.weight * self.scale, bias, stride=self.stride, padding=self.padding)


class EqualizedLinear(nn.Module):
    """``EqualizedConv`` for vectors."""

    def __init__(self, in_features: int, out_features: int, *, gain: float = 1.0) -> None:
        super().__init__()
        self.gain = gain
        self.scale = gain / math.sqrt(in_features)
        self.weight = nn.Parameter(torch.empty(out_features, in_features))
        self.bias = nn.Parameter(torch.empty(out_features))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.normal_(self.weight)
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * self.scale, self.bias * self.gain)
