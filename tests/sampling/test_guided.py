"""Guidance of denoisers: identities that hold to the bit, the number of passes, windows, a weaker model."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from vq.core.conditions import Condition
from vq.core.errors import ConfigError
from vq.core.records import Prediction
from vq.registries import VQGuidanceRegistry
from vq.sampling.guidance import constant, interval, linear, window
from vq.sampling.guided import Guided


class Network:
    """Moves each row by its category, or by -1 without one. Counts rows of its passes."""

    def __init__(self, kind: Any = 'velocity', factor: float = 1.0, variance: bool = True) -> None:
        self.kind, self.factor, self.variance, self.passes = kind, factor, variance, list[int]()

    def __call__(self, z: Tensor, t: float, condition: Condition | None, /) -> Prediction:
        self.passes.append(len(z))
        moved = torch.full((len(z),), -1.0)
        if condition is not None and condition.category is not None:
            known = torch.ones(len(z), dtype=torch.bool) if condition.null is None else ~condition.null
            moved = torch.where(known, condition.category.float(), moved)
        value = self.factor * z * t + moved.view(-1, 1, 1)
        return Prediction(value, self.kind, 0.1 * value if self.variance else None)


def case(rows: int = 3) -> tuple[Tensor, Condition]:
    z = torch.randn(rows, 5, 4, generator=torch.Generator().manual_seed(1))
    return z, Condition(torch.arange(1, rows + 1))


def test_scale_1_is_the_conditional_and_0_the_unconditional_estimate_to_the_bit_in_one_pass() -> None:
    network, (z, condition) = Network(), case()
    one, zero = (Guided(network, partial(constant, scale=scale))(z, 0.6, condition) for scale in (1.0, 0.0))
    assert network.passes == [3, 3]
    for found, expected in ((one, network(z, 0.6, condition)), (zero, network(z, 0.6, None))):
        assert found.kind == 'velocity' and found.variance is not None and expected.variance is not None
        assert torch.equal(found.value, expected.value) and torch.equal(found.variance, expected.variance)


def test_null_rows_are_unconditional_at_any_scale() -> None:
    network, (z, condition) = Network(), case()
    null = condition.without(torch.tensor([True, False, True]))
    found, known = (Guided(network, partial(constant, scale=4.0))(z, 0.6, each).value for each in (null, condition))
    expected = network(z, 0.6, None).value
    assert torch.equal(found[[0, 2]], expected[[0, 2]]) and torch.equal(found[1], known[1])
    assert not torch.equal(known[0], expected[0])


def test_all_channels_are_guided_unless_fewer_are_asked_for_and_variances_are_not() -> None:
    network, (z, condition) = Network(), case()
    c, u = network(z, 0.6, condition), network(z, 0.6, None)
    network.passes.clear()
    found = Guided(network, partial(constant, scale=2.5))(z, 0.6, condition)
    assert network.passes == [6] and found.variance is not None and c.variance is not None
    torch.testing.assert_close(found.value, u.value + 2.5 * (c.value - u.value))
    assert (found.value != c.value).flatten(2).any(2).all(), 'every channel changes'
    assert torch.equal(found.variance, c.variance)
    three = Guided(network, partial(constant, scale=2.5), channels=3)(z, 0.6, condition).value
    assert torch.equal(three[:, :3], found.value[:, :3]) and torch.equal(three[:, 3:], c.value[:, 3:])
    none = Guided(network, partial(constant, scale=0.0), channels=3)(z, 0.6, condition).value
    assert torch.equal(none[:, :3], u.value[:, :3]) and torch.equal(none[:, 3:], c.value[:, 3:])


def test_the_schedule_goes_from_noise_to_data() -> None:
    network, (z, condition) = Network(variance=False), case()
    for t in (1.0, 0.75, 0.2, 0.0):
        found = Guided(network, partial(linear, scale=5.0, start=2.0))(z, t, condition)
        c, u = network(z, t, condition).value, network(z, t, None).value
        torch.testing.assert_close(found.value, u + (5.0 - 3.0 * t) * (c - u))
        assert found.variance is None


def test_no_second_pass_outside_of_the_window() -> None:
    network, (z, condition) = Network(), case()
    guided = Guided(network, VQGuidanceRegistry.build(dict(type='WindowGuidance', scale=3.0, first=0.3, last=0.9)))
    times = [0.9500001, 0.9, 0.7, 0.3, 0.2999, 0.0]
    values = [guided(z, t, condition).value for t in times]
    assert network.passes == [3, 6, 6, 6, 3, 3]
    assert torch.equal(values[0], network(z, times[0], condition).value)
    assert [window(step, 5, scale=2.0, first=0.5) for step in range(5)] == [2, 2, 2, 1, 1]  # progress 0 is time 1
    with pytest.raises(ConfigError, match=r'from time 0\.8 to time 0\.2'):
        window(0.5, 2, scale=3.0, first=0.8, last=0.2)
    with pytest.raises(ConfigError, match='IntervalGuidance counts steps'):
        Guided(network, partial(interval, scale=3.0, last=1))(z, 0.4, condition)


def test_autoguidance_goes_away_from_a_weaker_model_of_the_same_condition() -> None:
    network, weak, (z, condition) = Network(), Network(factor=0.5), case()
    for given in (condition, None):
        found = Guided(network, partial(constant, scale=2.0), weak=weak)(z, 0.6, given)
        strong, low = network(z, 0.6, given), weak(z, 0.6, given)
        torch.testing.assert_close(found.value, low.value + 2 * (strong.value - low.value))
        assert found.variance is not None and strong.variance is not None and torch.equal(found.variance, strong.variance)
    assert set(network.passes) == set(weak.passes) == {3}, 'never a doubled batch'
    weak.passes.clear()
    assert torch.equal(Guided(network, constant, weak=weak)(z, 0.6, condition).value, network(z, 0.6, condition).value)
    assert weak.passes == []
    zero = Guided(network, partial(constant, scale=0.0), weak=weak)(z, 0.6, condition)
    assert torch.equal(zero.value, weak(z, 0.6, condition).value)
    with pytest.raises(ConfigError, match=r'estimates velocity, .* estimates epsilon'):
        Guided(network, partial(constant, scale=2.0), weak=Network('epsilon'))(z, 0.6, condition)


def test_a_model_without_conditions_is_not_guided() -> None:
    network, (z, _) = Network(), case()
    assert torch.equal(Guided(network, partial(constant, scale=3.0))(z, 0.6, None).value, network(z, 0.6, None).value)
    assert network.passes == [3, 3]


def test_texts_alone_can_be_guided_and_conditions_are_prepared_once() -> None:
    seen: list[Condition | None] = []

    def denoise(z: Tensor, t: float, condition: Condition | None) -> Prediction:
        seen.append(condition)
        return Prediction(z, 'x0')

    guided, z = Guided(denoise, partial(constant, scale=2.0)), torch.ones(2, 3)
    first, other = Condition(text=['a', 'b']), Condition(text=['c', 'd'])
    for condition in (first, first, other):
        guided(z, 0.5, condition)
    assert seen[0] is seen[1] and seen[0] is not None and seen[2] is not None
    assert seen[0].text == ['a', 'b', 'a', 'b'] and seen[2].text == ['c', 'd', 'c', 'd']
    assert seen[0].null is not None and seen[0].null.tolist() == [False, False, True, True]


def test_low_precision_is_combined_in_fp32() -> None:
    def denoise(z: Tensor, t: float, condition: Condition | None) -> Prediction:
        return Prediction(z.bfloat16(), 'x0')

    for dtype, expected in ((torch.float32, torch.float32), (torch.float64, torch.float64)):
        made = Guided(lambda z, t, c: Prediction(z, 'x0'), partial(constant, scale=2.0))
        assert made(torch.ones(2, 3, dtype=dtype), 0.5, Condition(torch.ones(2).long())).value.dtype == expected
    assert Guided(denoise, partial(constant, scale=2.0))(torch.ones(2, 3), 0.5, case(2)[1]).value.dtype == torch.float32


def test_wrong_numbers_of_channels_are_refused() -> None:
    network, (z, condition) = Network(), case()
    with pytest.raises(ConfigError, match='guidance of 0 channels'):
        Guided(network, constant, channels=0)
    with pytest.raises(ConfigError, match='guidance of 9 channels of 5'):
        Guided(network, partial(constant, scale=2.0), channels=9)(z, 0.5, condition)
