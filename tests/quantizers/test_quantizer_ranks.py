"""Two processes keep one codebook, to the bit, and it is the one a single process with the whole batch would have."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from vq.core import collectives
from vq.registries import VQQuantizerRegistry

STEPS, ROWS = 20, 48


def train(config: dict[str, Any], micro_batches: int = 1) -> list[dict[str, Tensor]]:
    """The state after each step of a run with averaged gradients; each rank takes its share of every batch."""
    torch.manual_seed(0)
    quantizer = VQQuantizerRegistry.build(config).train()
    states = []
    for step in range(STEPS):
        batch = torch.randn(ROWS, 5, generator=torch.Generator().manual_seed(step)) * (1 + step % 3)
        for micro_batch in batch.chunk(micro_batches):
            quantized = quantizer(micro_batch.chunk(collectives.size())[collectives.rank()])
            loss = sum(quantizer.loss_weights[name] * value for name, value in quantized.losses.items())
            if loss.requires_grad:
                (loss / micro_batches).backward()
        for parameter in quantizer.parameters():
            with torch.no_grad():
                parameter.sub_(0.5 * collectives.all_reduce(parameter.grad) / collectives.size())
            parameter.grad = None
        quantizer.update(torch.tensor(step % 7 != 3))
        states.append({key: value.detach().clone() for key, value in quantizer.state_dict().items()})
    return states


@pytest.mark.slow
def test_two_ranks_agree_to_the_bit_and_with_one(gloo_pool, moving, configs):
    first, second = gloo_pool.run(train, configs[moving])
    alone, accumulated = train(configs[moving]), train(configs[moving], micro_batches=2)
    for step in range(STEPS):
        assert first[step].keys() == second[step].keys() == alone[step].keys()
        for key, value in first[step].items():
            assert torch.equal(value, second[step][key]), (step, key)
            torch.testing.assert_close(value, alone[step][key], rtol=1e-5, atol=1e-6)
            torch.testing.assert_close(value, accumulated[step][key], rtol=1e-5, atol=1e-6)
