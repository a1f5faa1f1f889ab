"""Connectors between networks and quantizers: they change the width."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from vq.core.errors import ConfigError
from vq.interfaces import Connector
from vq.registries import VQConnectorRegistry


@VQConnectorRegistry.register_()
class IdentityConnector(Connector):
    """Returns features unchanged; refuses neighbours of different widths."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        if in_channels != out_channels:
            raise ConfigError(
                f'IdentityConnector cannot join {in_channels} channels to {out_channels}',
                "Use dict(type='ConvConnector'), or make the widths equal.",
            )
        self.in_channels = in_channels
        self.out_channels = out_channels

    def forward(self, x: Tensor) -> Tensor:
        return x


@VQConnectorRegistry.register_()
class ConvConnector(Connector):
    """A convolution that keeps the resolution: (B, in_channels, h, w) -> (B, out_channels, h, w)."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 1) -> None:
        super().__init__()
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ConfigError(f'kernel_size {kernel_size} does not keep the resolution', 'Give an odd kernel_size: 1, 3, ...')
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        return y


@VQConnectorRegistry.register_()
class ChainConnector(Connector):
    """1x1 convolutions in a row, without activations: (B, in_channels, h, w) -> (B, out_channels, h, w).

    ``widths`` are the channels between them. Scalar quantizers of the reference toolkit have one such width on both sides.
    """

    def __init__(self, in_channels: int, out_channels: int, widths: tuple[int, ...] = (256,)) -> None:
        super().__init__()
        if not widths or min(widths) < 1:
            raise ConfigError(
                f'ChainConnector has widths {tuple(widths)}',
                "Give the channels between its convolutions, from 1 up; a single one is dict(type='ConvConnector').",
            )
        self.in_channels = in_channels
        self.out_channels = out_channels
        channels = [in_channels, *widths, out_channels]
        self.convs = nn.Sequential(*(nn.Conv2d(before, after, 1) for before, after in pairwise(channels)))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.convs(x)
        return y
