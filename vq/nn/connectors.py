"""What stands between networks and quantizers: changes of width."""

from __future__ import annotations

from torch import Tensor, nn

from vq.core.errors import ConfigError
from vq.interfaces import Connector
from vq.registries import VQConnectorRegistry


@VQConnectorRegistry.register_()
class IdentityConnector(Connector):
    """Hands features on unchanged; says so where the neighbours do not fit."""

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
