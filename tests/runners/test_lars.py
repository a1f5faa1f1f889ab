"""LARS against its formula: in a small case by hand, and against NumPy over many steps."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy
import pytest
import torch
from torch import nn

from vq.core.errors import ConfigError
from vq.registries import VQOptimizerRegistry
from vq.strategies.fsdp import FSDPStrategy
from vq.strategies.stepping import _masked_step, guarded_step


def make(*parameters: nn.Parameter, **settings: Any) -> torch.optim.Optimizer:
    factory = VQOptimizerRegistry.build(dict(type='LARS', **settings))
    return factory([{'params': list(parameters)}], True)


def test_two_steps_on_paper() -> None:
    """|w| = 5, |g| = 2: r = 0.1 * 5 / 2 = 0.25. Then |w'| of w' = w - 0.5 * 0.25 g."""
    weight, bias = nn.Parameter(torch.tensor([[3.0, 4.0]])), nn.Parameter(torch.tensor([10.0]))
    optimizer = make(weight, bias, lr=0.5, momentum=0.8, trust=0.1)
    weight.grad, bias.grad = torch.tensor([[0.0, 2.0]]), torch.tensor([1.0])
    optimizer.step()
    torch.testing.assert_close(weight.detach(), torch.tensor([[3.0, 3.75]]))
    torch.testing.assert_close(bias.detach(), torch.tensor([9.5]))  # a vector: plain momentum
    optimizer.step()
    rate = 0.1 * (9 + 3.75**2) ** 0.5 / 2
    torch.testing.assert_close(weight.detach(), torch.tensor([[3.0, 3.75 - 0.5 * (0.8 * 0.5 + 2 * rate)]]))
    torch.testing.assert_close(bias.detach(), torch.tensor([9.5 - 0.5 * 1.8]))


def reference(
    weights: list[numpy.ndarray], gradients: list[list[numpy.ndarray]], rates: list[float], m: float, d: float, trust: float
) -> list[numpy.ndarray]:
    speeds = [numpy.zeros_like(weight) for weight in weights]
    for pulls, rate in zip(gradients, rates, strict=True):
        for index, pull in enumerate(pulls):
            local = 1.0
            if weights[index].ndim >= 2:
                pull = pull + d * weights[index]
                norms = float((weights[index] ** 2).sum()) ** 0.5, float((pull**2).sum()) ** 0.5
                local = trust * norms[0] / norms[1] if min(norms) > 0 else 1.0
            speeds[index] = m * speeds[index] + local * pull
            weights[index] = weights[index] - rate * speeds[index]
    return weights


@pytest.mark.parametrize('as_tensor', [False, True])  # XLA's rates are tensors
def test_many_steps_equal_numpy(as_tensor: bool) -> None:
    random = numpy.random.default_rng(0)
    shapes = [(7, 5), (7,), (3, 2, 3, 1), (4, 4)]
    weights = [random.normal(size=shape) for shape in shapes]
    weights[3] *= 0  # its first steps have a norm of zero
    gradients = [[random.normal(size=shape) for shape in shapes] for _ in range(20)]
    gradients[4][0] *= 0
    rates = [1.6 * 0.9**step for step in range(20)]
    parameters = [nn.Parameter(torch.from_numpy(weight.copy())) for weight in weights]
    optimizer = make(*parameters, lr=9.0, momentum=0.9, weight_decay=0.05, trust=0.02)
    for pulls, rate in zip(gradients, rates, strict=True):
        optimizer.param_groups[0]['lr'] = torch.tensor(rate, dtype=torch.float64).requires_grad_() if as_tensor else rate
        for parameter, pull in zip(parameters, pulls, strict=True):
            parameter.grad = torch.from_numpy(pull.copy())
        optimizer.step()
    expected = reference(weights, gradients, rates, 0.9, 0.05, 0.02)
    for parameter, weight in zip(parameters, expected, strict=True):
        numpy.testing.assert_allclose(parameter.detach().numpy(), weight, rtol=1e-12, atol=1e-13)


def test_the_scale_of_the_loss_does_not_matter() -> None:
    """The purpose of the layer-wise rate: g and 1000 g give the same step."""
    start, pull = torch.randn(6, 3), torch.randn(6, 3)
    ends = []
    for scale in (1.0, 1000.0):
        weight = nn.Parameter(start.clone())
        optimizer = make(weight, lr=1.0)
        weight.grad = pull * scale
        optimizer.step()
        ends.append(weight.detach())
    torch.testing.assert_close(*ends)


def test_state_goes_on_in_another_optimizer() -> None:
    torch.manual_seed(0)
    pulls = torch.randn(6, 4, 3)
    whole, first = nn.Parameter(torch.ones(4, 3)), nn.Parameter(torch.ones(4, 3))
    one, two = make(whole, lr=2.0), make(first, lr=2.0)
    for pull in pulls:
        whole.grad = pull
        one.step()
    for pull in pulls[:3]:
        first.grad = pull
        two.step()
    second = nn.Parameter(first.detach().clone())
    three = make(second, lr=2.0)
    three.load_state_dict(two.state_dict())
    for pull in pulls[3:]:
        second.grad = pull
        three.step()
    assert torch.equal(whole, second)


@pytest.mark.parametrize('step', [guarded_step, _masked_step])
def test_a_refused_step_changes_nothing(step: Any) -> None:
    weight = nn.Parameter(torch.ones(3, 2))
    optimizer = make(weight, lr=1.0)
    for flag in (False, True, False):
        before = weight.detach().clone()
        speed = optimizer.state[weight].get('momentum_buffer', torch.zeros(3, 2)).clone()
        weight.grad = torch.full_like(weight, torch.nan if not flag else 0.5)
        step(optimizer, torch.tensor(flag))
        assert torch.equal(weight, before) == (not flag)
        if not flag:
            assert torch.equal(optimizer.state[weight].get('momentum_buffer', torch.zeros(3, 2)), speed)


def test_fsdp_refuses_it() -> None:
    """It would compute norms of a rank's shard."""
    with pytest.raises(ConfigError, match='LARS may look at whole tensors'):
        FSDPStrategy.step(SimpleNamespace(), make(nn.Parameter(torch.ones(2, 2))), torch.tensor(True))  # type: ignore[arg-type]
