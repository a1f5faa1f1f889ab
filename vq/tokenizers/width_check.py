"""Check that the channel widths of neighbouring parts of a tokenizer match."""

from __future__ import annotations

from vq.core.errors import ConfigError
from vq.interfaces import Connector


def check_join(left: str, out_channels: int, between: str, connector: Connector | None, right: str, in_channels: int) -> None:
    """Refuse neighbours whose widths do not match each other, or do not match the connector between them."""
    if connector is None:
        if out_channels != in_channels:
            raise ConfigError(
                f'{left} gives {out_channels} channels and {right} takes {in_channels}',
                f"Add {between}=dict(type='ConvConnector'), or make the widths equal.",
            )
    elif connector.in_channels != out_channels or connector.out_channels != in_channels:
        raise ConfigError(
            f'{between} joins {connector.in_channels} to {connector.out_channels} channels, '
            f'but {left} gives {out_channels} and {right} takes {in_channels}',
            f'Leave in_channels and out_channels of {between} out: they follow from the neighbours.',
        )
