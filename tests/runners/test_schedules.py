"""Schedules against their formulas."""

from __future__ import annotations

import math

import pytest

from vq.core.errors import ConfigError
from vq.runners.schedules import ConstantSchedule, CosineSchedule, LinearSchedule


def bound(schedule, iters=100):
    schedule.bind(iters)
    return schedule


def test_warmup_is_a_line_from_start_to_one() -> None:
    schedule = bound(ConstantSchedule(warmup=4, start=0.2))
    assert [schedule(step) for step in range(1, 7)] == pytest.approx([0.4, 0.6, 0.8, 1.0, 1.0, 1.0])


def test_cosine_ends_at_final_and_passes_the_middle() -> None:
    schedule = bound(CosineSchedule(warmup=20, final=0.1))
    assert schedule(20) == pytest.approx(1.0)
    assert schedule(60) == pytest.approx(0.55)
    assert schedule(40) == pytest.approx(0.1 + 0.9 * (1 + math.cos(math.pi / 4)) / 2)
    assert schedule(100) == pytest.approx(0.1)
    assert schedule(150) == pytest.approx(0.1)


def test_linear_with_its_own_length() -> None:
    schedule = bound(LinearSchedule(length=10, final=0.5), iters=1000)
    assert schedule(5) == pytest.approx(0.75)
    assert schedule(500) == pytest.approx(0.5)


def test_an_open_length_is_that_of_the_run() -> None:
    assert bound(LinearSchedule(), iters=7)(7) == pytest.approx(0.0)


def test_warmup_longer_than_the_run_is_refused() -> None:
    with pytest.raises(ConfigError, match='warmup takes 50 iterations of a schedule of 10'):
        bound(CosineSchedule(warmup=50), iters=10)
