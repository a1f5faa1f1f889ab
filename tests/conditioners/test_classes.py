"""Classes as vectors: the null row, what training drops, and what is refused."""

from __future__ import annotations

import pytest
import torch

from vq.conditioners.classes import ClassConditioner
from vq.core.conditions import Condition
from vq.core.errors import ConfigError


@pytest.fixture
def conditioner() -> ClassConditioner:
    torch.manual_seed(0)
    return ClassConditioner(5, 8, drop=0.25, std=1.0)


def test_rows_without_a_class_get_the_last_vector(conditioner):
    null = conditioner.table.weight[5].expand(3, -1)
    category = torch.tensor([4, 0, 4])
    assert torch.equal(conditioner(Condition(category), 3).vector, conditioner.table.weight[category])
    for condition in (None, Condition(), Condition(category, null=torch.ones(3, dtype=torch.bool))):
        assert torch.equal(conditioner(condition, 3).vector, null)
    some = conditioner(Condition(category, null=torch.tensor([False, True, False])), 3).vector
    assert torch.equal(some, torch.stack([conditioner.table.weight[row] for row in (4, 5, 4)]))
    both = Condition(category).doubled()
    assert torch.equal(conditioner(both, 6).vector[3:], null)


def test_training_drops_the_rows_below_its_share(conditioner):
    condition = Condition(torch.arange(4), null=torch.tensor([False, False, True, False]))
    uniforms = torch.tensor([0.1, 0.25, 0.9, 0.2])
    assert conditioner.train().dropped(condition, uniforms).null.tolist() == [True, False, True, True]
    assert conditioner.eval().dropped(condition, uniforms) is condition
    assert conditioner.train().dropped(None, uniforms) is None
    assert ClassConditioner(5, 8, drop=0).train().dropped(condition, uniforms) is condition


def test_vectors_learn_and_start_with_the_deviation_that_was_asked_for(conditioner):
    conditioner(Condition(torch.tensor([1, 1])), 2).vector.sum().backward()
    assert [row.any().item() for row in conditioner.table.weight.grad] == [False, True, False, False, False, False]
    assert ClassConditioner(1000, 64).table.weight.std().item() == pytest.approx(0.02, rel=0.02)


def test_bad_settings():
    with pytest.raises(ConfigError, match='classes is 0'):
        ClassConditioner(0, 8)
    with pytest.raises(ConfigError, match=r'drop 1\.5'):
        ClassConditioner(5, 8, drop=1.5)
