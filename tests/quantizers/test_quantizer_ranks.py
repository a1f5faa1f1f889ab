"""Two ranks have bitwise equal codebooks, equal to that of a single process with the whole batch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.quantizers.conftest import RESTART
from vq.core import collectives
from vq.registries import VQQuantizerRegistry

STEPS, ROWS = 20, 48


def train(config: dict[str, Any], micro_batches: int = 1, shape: tuple[int, ...] = (ROWS,)) -> list[dict[str, Tensor]]:
    """The state after each step of a run with averaged gradients; each rank takes its share of every batch."""
    torch.manual_seed(0)
    quantizer = VQQuantizerRegistry.build(config).train()
    states = []
    for step in range(STEPS):
        batch = torch.randn(*shape, quantizer.embedding_dim, generator=torch.Generator().manual_seed(step)) * (1 + step % 3)
        for micro_batch in batch.chunk(micro_batches):
            quantized = quantizer(micro_batch.chunk(collectives.size())[collectives.rank()])
            loss = sum(quantizer.loss_weights[name] * value for name, value in quantized.losses.items())
            if isinstance(loss, Tensor) and loss.requires_grad:  # some have no losses, and some nothing that learns
                (loss / micro_batches).backward()
        for parameter in quantizer.parameters():
            if parameter.grad is None:
                continue
            with torch.no_grad():
                parameter.sub_(0.5 * collectives.all_reduce(parameter.grad) / collectives.size())
            parameter.grad = None
        quantizer.update(torch.tensor(step % 7 != 3))
        states.append({key: value.detach().clone() for key, value in quantizer.state_dict().items()})
    return states


def train_all(configs: dict[str, dict[str, Any]]) -> dict[str, list[dict[str, Tensor]]]:
    return {name: train(config) for name, config in configs.items()}


@pytest.mark.slow
def test_two_ranks_agree_to_the_bit_and_with_one(gloo_pool, moving, configs):
    compare(gloo_pool, configs[moving], (ROWS,), micro_batches=2)


@pytest.mark.slow
@pytest.mark.parametrize('restart', [None, RESTART])
def test_the_scales_of_a_map_too(gloo_pool, restart):
    """Micro-batches come scale after scale, each: a codebook then sees features in another order, and draws others."""
    update = dict(type='EMAUpdate', decay=0.8, restart=restart)
    inner = dict(type='VectorQuantizer', codebook_size=37, embedding_dim=3, update=update)
    config = dict(type='MultiScaleQuantizer', quantizer=inner, scales=(1, 2, 5), convolutions=1)
    compare(gloo_pool, config, (8, 5, 5), micro_batches=2 if restart is None else 1)


def compare(gloo_pool, config: dict[str, Any], shape: tuple[int, ...], micro_batches: int) -> None:
    first, second = gloo_pool.run(train, config, 1, shape)
    alone, accumulated = train(config, 1, shape), train(config, micro_batches, shape)
    for step in range(STEPS):
        assert first[step].keys() == second[step].keys() == alone[step].keys()
        for key, value in first[step].items():
            assert torch.equal(value, second[step][key]), (step, key)
            torch.testing.assert_close(value, alone[step][key], rtol=1e-5, atol=1e-6)
            torch.testing.assert_close(value, accumulated[step][key], rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_two_ranks_agree_where_only_gradients_move_codes(gloo_pool, configs):
    """All at once, since no rank has state of its own here."""
    still = {name: config for name, config in configs.items() if "'update'" not in str(config)}
    first, second = gloo_pool.run(train_all, still)
    for name, states in first.items():
        assert len(states) == STEPS
        for step, state in enumerate(states):
            for key, value in state.items():
                assert torch.equal(value, second[name][step][key]), (name, step, key)
