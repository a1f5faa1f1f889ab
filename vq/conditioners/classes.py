"""Classes as vectors."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import nn

from vq.core.conditions import Condition
from vq.core.errors import ConfigError
from vq.interfaces import Conditioned, Conditioner
from vq.interfaces.conditions import Kind
from vq.registries import VQConditionerRegistry


@VQConditionerRegistry.register_()
class ClassConditioner(Conditioner):
    """The category of an image -> a learned vector (B, dim); one more vector is that of rows without a condition.

    ``drop``: share of rows that training learns without their category, which guidance needs. ``std``: of initial vectors.
    """

    kind: ClassVar[Kind] = 'classes'

    def __init__(self, classes: int, dim: int, drop: float = 0.1, std: float = 0.02) -> None:
        super().__init__()
        if classes < 1 or not 0 <= drop <= 1:
            raise ConfigError(f'classes is {classes} and drop {drop}', 'Give 1 class or more, and a share from 0 to 1.')
        self.classes, self.drop = classes, drop
        self.table = nn.Embedding(classes + 1, dim)
        nn.init.normal_(self.table.weight, std=std)

    def forward(self, condition: Condition | None, rows: int) -> Conditioned:
        null = torch.full((rows,), self.classes, device=self.table.weight.device)
        if condition is None or condition.category is None:
            return Conditioned(self.table(null))
        category = condition.category
        return Conditioned(self.table(category if condition.null is None else torch.where(condition.null, null, category)))
