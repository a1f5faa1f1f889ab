"""Calls of test_times.py that run on several ranks."""

from __future__ import annotations

import torch
from torch import Tensor

from vq.core import collectives
from vq.sampling.times import LossSecondMomentTimes


def followed(rounds: int, rows: int) -> dict[str, Tensor]:
    """The state of a law after rounds of ``rows`` losses, of which each rank has its share."""
    law, generator = LossSecondMomentTimes(4, history=3), torch.Generator().manual_seed(1)
    for step in range(rounds):
        t = torch.randint(1, 5, (rows,), generator=generator) / 4
        losses = t.square() + 0.1 * torch.rand(rows, generator=generator)
        t, losses = (value.chunk(collectives.size())[collectives.rank()] for value in (t, losses))
        law.observe(t, losses, torch.tensor(step != 2))
    return {**law.state_dict(), 'probabilities': law.probabilities()}
