"""MAR on two gloo ranks is that of one process: what is hidden, noise and dropped labels are functions of the samples."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from tests.ranks import GlooPool
from tests.tasks.test_diffusion import batch
from tests.tasks.test_latent_modeling import ENERGY, HEAD, task

pytestmark = pytest.mark.slow


def gradients(head: str) -> dict[str, torch.Tensor]:
    """Of one step. Ranks of the pool call it too, each with its half of the images."""
    model, seen = task(HEAD if head == 'diffusion' else ENERGY).train(), batch(4)
    roots = model.roots()
    if distributed.is_initialized():
        half = slice(2 * distributed.get_rank(), 2 * distributed.get_rank() + 2)
        parts = {name: getattr(seen, name)[half] for name in ('image', 'id', 'key', 'category')}
        seen = dataclasses.replace(seen, **parts)
        roots = {'generator': DistributedDataParallel(roots['generator'])}
    ((_, losses),) = model.training_step(seen, roots, 1)
    losses.total.backward()
    return {name: value.grad for name, value in model.named_parameters() if value.grad is not None}


@pytest.mark.parametrize('head', ['diffusion', 'energy'])
def test_two_ranks_equal_one_process(gloo_pool: GlooPool, head: str) -> None:
    alone = gradients(head)
    first, second = gloo_pool.run(gradients, head)
    assert alone.keys() == first.keys() and len(alone) > 20
    for name, value in alone.items():
        assert torch.equal(first[name], second[name]), name
        torch.testing.assert_close(first[name], value, rtol=1e-4, atol=1e-6, msg=name)
