"""Blocks of a UNet: what to subclass for blocks of one's own."""

from __future__ import annotations

from torch import Tensor, nn

from vq.interfaces.conditions import Conditioned


class UNetBlock(nn.Module):
    """x (B, C, h, w) -> (B, C', h', w').

    A UNet makes a block with the settings of its config, and with those of these numbers that its constructor takes:

        in_channels, out_channels   residual blocks
        channels                    all others: attention, and the blocks between two resolutions
        embedding_dim               of the vector that tells the time
        sequence_dim, layout_dim    of the entries of a sequence, of the classes of a layout; None: the denoiser takes none
        groups                      of group norms
    """

    reads: tuple[str, ...] = ()  # the forms of a condition that it needs: 'sequence', 'layout'

    @property
    def zero_gate(self) -> Tensor | None:
        """The matrix (C, n) of an adapter that starts at zero and lets through what it adds; None: the block has none."""
        return None

    def forward(self, x: Tensor) -> Tensor:
        raise NotImplementedError


class EmbedBlock(UNetBlock):
    """A block that is told the time and the vector of a conditioner: their sum is ``embedding`` (B, embedding_dim)."""

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:  # type: ignore[override]
        raise NotImplementedError


class ConditionBlock(UNetBlock):
    """A block that reads the condition itself, such as a sequence. None: the denoiser has no conditioner."""

    def forward(self, x: Tensor, condition: Conditioned | None) -> Tensor:  # type: ignore[override]
        raise NotImplementedError


def applied(block: nn.Module, x: Tensor, embedding: Tensor, condition: Conditioned | None) -> Tensor:
    """A block of any of these kinds on x (B, C, h, w)."""
    y: Tensor
    if isinstance(block, EmbedBlock):
        y = block(x, embedding)
    elif isinstance(block, ConditionBlock):
        y = block(x, condition)
    else:
        y = block(x)
    return y
