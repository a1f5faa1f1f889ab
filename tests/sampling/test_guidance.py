"""Guidance: closed forms."""

from __future__ import annotations

import math

import pytest
import torch

from vq.core.errors import ConfigError
from vq.registries import VQGuidanceRegistry
from vq.sampling.guidance import guided


def schedule(kind: str, steps: int, **settings) -> list[float]:
    function = VQGuidanceRegistry.build(dict(type=kind, **settings))
    return [function(step, steps) for step in range(steps)]


def test_guided_moves_away_from_the_unconditional():
    c, u = torch.tensor([1.0, 4.0]), torch.tensor([3.0, 2.0])
    for scale, expected in ((0.0, u), (1.0, c), (3.0, torch.tensor([-3.0, 8.0])), (1.75, 1.75 * c - 0.75 * u)):
        torch.testing.assert_close(guided(c, u, scale), expected)


@pytest.mark.parametrize(
    ('kind', 'settings', 'expected'),
    [
        ('ConstantGuidance', {}, [1, 1, 1, 1, 1]),
        ('ConstantGuidance', dict(scale=4.0), [4, 4, 4, 4, 4]),
        ('LinearGuidance', dict(scale=5.0), [1, 2, 3, 4, 5]),
        ('LinearGuidance', dict(scale=1.0, start=3.0), [3, 2.5, 2, 1.5, 1]),
        ('CosineGuidance', dict(scale=3.0), [1, 2 - math.sqrt(0.5), 2, 2 + math.sqrt(0.5), 3]),
        ('PowerGuidance', dict(scale=17.0), [1, 2, 5, 10, 17]),
        ('PowerGuidance', dict(scale=5.0, exponent=1.0), [1, 2, 3, 4, 5]),
        ('PowerGuidance', dict(scale=2.0, exponent=0.5, start=0.0), [0, 1, math.sqrt(2), math.sqrt(3), 2]),
        ('IntervalGuidance', dict(scale=2.0, last=2), [2, 2, 2, 1, 1]),
        ('IntervalGuidance', dict(scale=2.0, first=1, last=1), [1, 2, 1, 1, 1]),
    ],
)
def test_schedules_are_their_formulas(kind, settings, expected):
    assert schedule(kind, 5, **settings) == pytest.approx(expected)


@pytest.mark.parametrize('kind', ['LinearGuidance', 'CosineGuidance', 'PowerGuidance'])
def test_a_single_step_has_the_full_scale(kind):
    assert schedule(kind, 1, scale=4.0) == [4.0]


def test_settings_without_sense_are_refused():
    with pytest.raises(ConfigError, match='exponent'):
        schedule('PowerGuidance', 3, scale=2.0, exponent=0.0)
    with pytest.raises(ConfigError, match='from step 3 to step 2'):
        schedule('IntervalGuidance', 3, scale=2.0, first=3, last=2)
    with pytest.raises(ConfigError, match='scale'):
        VQGuidanceRegistry.build(dict(type='ConstantGuidance', scael=2.0))
