"""Conditions together: the energy of a product of Gaussians."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from vq.core.conditions import Condition
from vq.core.errors import ConfigError
from vq.core.records import Prediction
from vq.sampling.composed import Composed
from vq.sampling.guidance import constant
from vq.sampling.guided import Guided

WIDE = 0.25  # precision of the Gaussian without a condition


def gaussians(z: torch.Tensor, t: float, condition: Condition | None, /) -> Prediction:
    """E = precision |z - mean|^2 / 2: around the category with precision 1, around 0 with ``WIDE`` without one."""
    assert condition is not None and condition.category is not None
    null = torch.zeros(len(z), dtype=torch.bool) if condition.null is None else condition.null
    mean = torch.where(null, 0.0, condition.category.to(z)).view(-1, 1, 1)
    precision = torch.where(null, WIDE, 1.0).to(z).view(-1, 1, 1)
    return Prediction(precision * (z - mean), 'epsilon', energy=(precision * (z - mean).square() / 2).flatten(1).sum(1))


def case() -> tuple[torch.Tensor, list[Condition]]:
    z = torch.randn(3, 2, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return z, [Condition(torch.tensor([1, 2, 3])), Condition(torch.tensor([5, -2, 0]))]


def test_two_gaussians_make_the_gaussian_of_their_product() -> None:
    """p(z | a) p(z | b) / p(z) has the precision 1 + 1 - 1/4, and the mean (a + b) over that."""
    z, both = case()
    found = Composed(gaussians, both)(z, 0.5, None)
    precision = 2 - WIDE
    means = (both[0].category + both[1].category).double().view(-1, 1, 1) / precision  # type: ignore[operator]
    torch.testing.assert_close(found.value, precision * (z - means))
    there = Composed(gaussians, both)(means.expand_as(z), 0.5, None)
    assert found.energy is not None and there.energy is not None
    torch.testing.assert_close(found.energy - there.energy, (precision * (z - means).square() / 2).flatten(1).sum(1))


def test_one_condition_is_guidance() -> None:
    z, (one, _) = case()
    found, expected = (
        Composed(gaussians, [one], 2.5)(z, 0.5, None),
        Guided(gaussians, partial(constant, scale=2.5))(z, 0.5, one),
    )
    torch.testing.assert_close(found.value, expected.value)
    torch.testing.assert_close(found.energy, expected.energy)


def test_a_denoiser_sees_the_same_empty_condition_at_each_step_and_none_is_refused() -> None:
    seen = []

    def noted(z: torch.Tensor, t: float, condition: Condition | None, /) -> Prediction:
        seen.append(condition)
        return gaussians(z, t, condition)

    z, both = case()
    composed = Composed(noted, both)
    composed(z, 0.5, None)
    composed(z, 0.4, None)
    assert len(seen) == 6 and all(one is other for one, other in zip(seen[:3], seen[3:], strict=True))
    with pytest.raises(ConfigError, match='no condition'):
        Composed(gaussians, [])
