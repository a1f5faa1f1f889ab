"""Sharded tensors (torch's DTensor, sharded along one dimension). Plain tensors are passed through unchanged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from vq.core import collectives


def is_sharded(value: Tensor) -> bool:
    return hasattr(value, 'to_local')  # not isinstance: importing DTensor takes half a second


def local(value: Tensor) -> Tensor:
    """This rank's shard, in the same memory, detached from autograd."""
    if not is_sharded(value):
        return value
    with torch.no_grad():
        part: Tensor = value.to_local()  # type: ignore[attr-defined]
    return part


def part_of(whole: Tensor, template: Tensor) -> Tensor:
    """This rank's shard of ``whole`` under the sharding of ``template``: a view."""
    if not is_sharded(template):
        return whole
    cut: Any = template
    (placement,) = cut.placements
    rows = -(-whole.shape[placement.dim] // cut.device_mesh.size())
    start = min(rows * cut.device_mesh.get_local_rank(), whole.shape[placement.dim])
    return whole.narrow(placement.dim, start, local(template).shape[placement.dim])


def joined(part: Tensor, template: Tensor) -> Tensor:
    """The DTensor made of every rank's ``part``, with the sharding of ``template``."""
    if not is_sharded(template):
        return part
    from torch.distributed.tensor import DTensor

    cut: Any = template
    return DTensor.from_local(
        part.contiguous(), cut.device_mesh, cut.placements, run_check=False, shape=cut.shape, stride=cut.stride()
    )


def as_template(state: Mapping[str, Tensor], templates: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Shard the tensors whose template is sharded. Tensors without a template stay as they are."""
    return {
        name: joined(part_of(value, templates[name]).to(local(templates[name]).device), templates[name])
        if name in templates
        else value
        for name, value in state.items()
    }


def gathered(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """All tensors unsharded, for the first rank to write. All ranks call it, with the same names in the same order.

    Sharded tensors are gathered one at a time: a device holds one of them whole, the CPU memory of the first rank all.
    Other ranks get only the plain tensors.
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
