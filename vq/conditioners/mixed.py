"""Several conditions at once, such as a layout and a text."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from vq.core.bindings import Source
from vq.core.conditions import Condition
from vq.core.errors import ConfigError
from vq.core.specs import ImageSize
from vq.interfaces import Conditioned, Conditioner
from vq.interfaces.conditions import Kind
from vq.registries import VQConditionerRegistry


def setting(name: str) -> Callable[[Mapping[str, Any]], Any]:
    """A source of ``binds``: a setting of the owner itself."""
    return lambda values: values.get(name)


@VQConditionerRegistry.register_()
class MixedConditioner(Conditioner):
    """What all ``parts`` make of a condition: the sum of their vectors, their sequences one after the other, and the maps and
    the layout of those that give them.

    ``drop``: share of rows that training learns without any condition, as guidance draws them. Beside it each part loses its
    own condition at its own rate, independently of the others. ``dim``, ``sequence_dim``, ``layout_dim`` and ``image_size``
    are passed to parts that take them.
    """

    binds: ClassVar[dict[str, Source]] = {
        f'parts.*.{name}': setting(name) for name in ('dim', 'sequence_dim', 'layout_dim', 'image_size')
    }

    def __init__(
        self,
        parts: dict[str, Conditioner],
        drop: float = 0.1,
        dim: int | None = None,
        sequence_dim: int | None = None,
        layout_dim: int | None = None,
        image_size: ImageSize | None = None,
    ) -> None:
        super().__init__()
        if not parts or not 0 <= drop <= 1:
            raise ConfigError(f'{len(parts)} parts and drop {drop}', 'Give 1 conditioner or more, and a share from 0 to 1.')
        if any(part.numbers != 1 for part in parts.values()):
            raise ConfigError('a part of a MixedConditioner is one itself', 'Put all conditioners into one.')
        self.parts, self.drop, self.numbers = nn.ModuleDict(parts), drop, 1 + len(parts)
        self.classes = max(part.classes for part in parts.values())
        for part in parts.values():  # what a page asks of a conditioner of layouts
            if 'layout' in part.kinds:
                self.labels = getattr(part, 'labels', 0)
                if hasattr(part, 'image_size'):  # of boxes
                    self.image_size = part.image_size

    @property
    def kinds(self) -> tuple[Kind, ...]:
        return tuple(dict.fromkeys(kind for part in self._parts() for kind in part.kinds))

    def forward(self, condition: Condition | None, rows: int) -> Conditioned:
        given = []
        for number, part in enumerate(self._parts()):
            own = condition
            if condition is not None and condition.lost is not None:
                own = dataclasses.replace(condition, lost=None).without(condition.lost[:, number])
            given.append(part(own, rows))
        vectors = [found.vector for found in given if found.vector is not None]
        return Conditioned(
            torch.stack(vectors).sum(0) if vectors else None,
            *_joined([found for found in given if found.sequence is not None]),
            self._only([found.maps for found in given], 'maps'),
            self._only([found.layout for found in given], 'a layout'),
        )

    def dropped(self, condition: Condition | None, uniforms: Tensor) -> Condition | None:
        if condition is None or not self.training:
            return condition
        rates = uniforms.new_tensor([self.drop, *(part.drop for part in self._parts())])
        lost = uniforms < rates  # (B, 1 + P)
        return dataclasses.replace(condition.without(lost[:, 0]), lost=lost[:, 1:])

    def _parts(self) -> list[Conditioner]:
        return [part for part in self.parts.values() if isinstance(part, Conditioner)]

    def _only(self, found: list[Any], what: str) -> Any:
        there = [value for value in found if value is not None]
        if len(there) > 1:
            raise ConfigError(f'{len(there)} conditioners give {what}', 'A network takes one of them: leave the others out.')
        return there[0] if there else None


def _joined(given: list[Conditioned]) -> tuple[Tensor | None, Tensor | None]:
    """Sequences (B, L_i, D), one after the other, and their mask, if any has one."""
    sequences = [found.sequence for found in given if found.sequence is not None]
    if not sequences:
        return None, None
    masks = [found.sequence_mask for found in given]
    if all(mask is None for mask in masks):
        return torch.cat(sequences, dim=1), None
    filled = [
        sequence.new_ones(sequence.shape[:2], dtype=torch.bool) if mask is None else mask
        for sequence, mask in zip(sequences, masks, strict=True)
    ]
    return torch.cat(sequences, dim=1), torch.cat(filled, dim=1)
