"""Texts."""

from __future__ import annotations

from typing import ClassVar

import torch

from vq.core.conditions import Condition
from vq.core.errors import ConfigError
from vq.interfaces import Conditioned, Conditioner, TextEncoder
from vq.interfaces.conditions import Kind
from vq.registries import VQConditionerRegistry


@VQConditionerRegistry.register_()
class TextConditioner(Conditioner):
    """The text of an image -> a sequence (B, L, D) by a frozen ``encoder``.

    ``drop``: share of rows that training learns without their text, which guidance needs. A row without a condition has the
    text ``null``, or that of ``Condition.negative``. ``sequence_dim``: D as the denoiser takes it.
    """

    kind: ClassVar[Kind] = 'text'

    def __init__(self, encoder: TextEncoder, drop: float = 0.1, null: str = '', sequence_dim: int | None = None) -> None:
        super().__init__()
        if not 0 <= drop <= 1:
            raise ConfigError(f'drop is {drop}', 'Give a share from 0 to 1.')
        if sequence_dim not in (None, encoder.dim):
            raise ConfigError(
                f'texts are of {encoder.dim} channels, and the denoiser attends to sequences of {sequence_dim}',
                f'Set sequence_dim of the denoiser to {encoder.dim}, or take another encoder.',
            )
        self.encoder, self.drop, self.null = encoder, drop, null

    def forward(self, condition: Condition | None, rows: int) -> Conditioned:
        negative = None if condition is None else condition.negative
        empty, empty_mask = self.encoder(negative or [self.null])
        if condition is None or condition.text is None:
            return Conditioned(
                sequence=empty.expand(rows, -1, -1), sequence_mask=None if empty_mask is None else empty_mask.expand(rows, -1)
            )
        sequence, mask = self.encoder(condition.text)
        if condition.null is not None:  # both are encoded, so that nothing waits for the device
            sequence = torch.where(condition.null[:, None, None], empty, sequence)
            mask = None if mask is None or empty_mask is None else torch.where(condition.null[:, None], empty_mask, mask)
        return Conditioned(sequence=sequence, sequence_mask=mask)
