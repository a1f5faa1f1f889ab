"""One resolution of a convolutional autoencoder."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from vq.core.errors import ConfigError
from vq.nn.attention import SpatialAttention
from vq.nn.norms import NormKind
from vq.nn.residual import Residual


class Level(nn.Module):
    """Residual blocks, each followed by attention if ``attention``, then ``resample``, a change of resolution or None."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        blocks: int,
        *,
        attention: bool = False,
        resample: nn.Module | None = None,
        dropout: float = 0.0,
        bias: bool = True,
        norm: NormKind = 'group',
        norm_groups: int = 32,
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            Residual(
                in_channels if index == 0 else out_channels,
                out_channels,
                dropout=dropout,
                bias=bias,
                norm=norm,
                norm_groups=norm_groups,
            )
            for index in range(blocks)
        )
        self.attentions = nn.ModuleList(
            SpatialAttention(out_channels, norm=norm, norm_groups=norm_groups) for _ in range(blocks if attention else 0)
        )
        self.resample = nn.Identity() if resample is None else resample

    def forward(self, x: Tensor) -> Tensor:
        for index, block in enumerate(self.blocks):
            x = block(x)
            if len(self.attentions):
                x = self.attentions[index](x)
        y: Tensor = self.resample(x)
        return y


def make_refine(
    channels: int,
    blocks: int,
    attention: bool,
    *,
    dropout: float = 0.0,
    bias: bool = True,
    norm: NormKind = 'group',
    norm_groups: int = 32,
) -> nn.Sequential:
    """The blocks at the lowest resolution: residual blocks, with attention between them if ``attention``."""
    parts: list[nn.Module] = []
    for index in range(blocks):
        if attention and index:
            parts.append(SpatialAttention(channels, norm=norm, norm_groups=norm_groups))
        parts.append(Residual(channels, channels, dropout=dropout, bias=bias, norm=norm, norm_groups=norm_groups))
    return nn.Sequential(*parts)


def check_levels(multipliers: Sequence[int], attention_levels: Sequence[int], residual_blocks: int) -> None:
    """Refuse settings that would silently build a different network."""
    if not multipliers or min(multipliers) < 1:
        raise ConfigError(
            f'multipliers {tuple(multipliers)} must be whole numbers from 1 on, one per level',
            'For example multipliers=(1, 1, 2, 2, 4).',
        )
    if residual_blocks < 1:
        raise ConfigError(f'residual_blocks is {residual_blocks}', 'Every level needs at least one residual block.')
    for level in attention_levels:
        if not 0 <= level < len(multipliers):
            raise ConfigError(
                f'attention_levels names level {level}, and there are {len(multipliers)} levels',
                f'Levels count from 0 (full resolution) to {len(multipliers) - 1} (lowest).',
            )
