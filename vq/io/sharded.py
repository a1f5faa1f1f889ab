"""Tensors of which every rank holds a part (torch's DTensor, cut along one dimension). Plain tensors pass through."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from vq.core import collectives


def is_sharded(value: Tensor) -> bool:
    return hasattr(value, 'to_local')  # without the import, which costs everybody half a second


def local(value: Tensor) -> Tensor:
    """This rank's part, in the same memory, outside of any graph."""
    if not is_sharded(value):
        return value
    with torch.no_grad():
        part: Tensor = value.to_local()  # type: ignore[attr-defined]
    return part


def part_of(whole: Tensor, template: Tensor) -> Tensor:
    """The rows of ``whole`` that this rank holds where it is cut as ``template`` is: a view."""
    if not is_sharded(template):
        return whole
    cut: Any = template
    (placement,) = cut.placements
    rows = -(-whole.shape[placement.dim] // cut.device_mesh.size())
    start = min(rows * cut.device_mesh.get_local_rank(), whole.shape[placement.dim])
    return whole.narrow(placement.dim, start, local(template).shape[placement.dim])


def joined(part: Tensor, template: Tensor) -> Tensor:
    """The distributed tensor of which every rank brings its part, cut as ``template`` is."""
    if not is_sharded(template):
        return part
    from torch.distributed.tensor import DTensor

    cut: Any = template
    return DTensor.from_local(
        part.contiguous(), cut.device_mesh, cut.placements, run_check=False, shape=cut.shape, stride=cut.stride()
    )


def as_template(state: Mapping[str, Tensor], templates: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Whole tensors, cut where the template of their name is."""
    return {
        name: joined(part_of(value, templates[name]).to(local(templates[name]).device), templates[name])
        if name in templates
        else value
        for name, value in state.items()
    }


def gathered(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Every tensor whole, for the first rank to write. All ranks call it, with the same names in the same order.

    Distributed ones come one at a time: a device holds one of them whole, the first rank's host memory all. The other
    ranks get the plain ones only.
    """
    found = {}
    for name, value in state.items():
        if not is_sharded(value):
            found[name] = value
            continue
        whole = value.detach().full_tensor()  # type: ignore[attr-defined]
        if collectives.is_main():
            found[name] = whole.cpu()
    return found
