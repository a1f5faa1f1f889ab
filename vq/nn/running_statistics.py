"""The average over ranks of running statistics, which every rank takes from its own batches."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vq.core import collectives
from vq.nn.batch_norm import BatchNorm


def unjoined_norms(module: nn.Module) -> list[BatchNorm]:
    """The batch norms whose running statistics depend on the rank."""
    return [part for part in module.modules() if isinstance(part, BatchNorm) and not part.synchronized]


@torch.no_grad()
def join_running_statistics(norms: Sequence[BatchNorm]) -> None:
    """Average running means and variances over ranks, by one all-reduce: a checkpoint holds one copy for all ranks, and after
    a resume every rank has the values that it had before.
    """
    if collectives.size() == 1 or not norms:
        return
    buffers: list[Tensor] = [buffer for norm in norms for buffer in (norm.running_mean, norm.running_var)]
    joined = collectives.all_reduce(torch.cat(buffers)) / collectives.size()
    for buffer, value in zip(buffers, torch.split(joined, [len(buffer) for buffer in buffers]), strict=True):
        buffer.copy_(value)
