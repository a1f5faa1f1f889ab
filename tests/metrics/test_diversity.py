"""Diversity in closed form, with a stand-in for LPIPS."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vq.core.errors import UserError
from vq.losses.perceptual import LPIPSLoss
from vq.metrics.diversity import PAIRS, diversity


def difference(one: Tensor, other: Tensor) -> Tensor:
    return (one - other).abs().mean((1, 2, 3))


def plain(*levels: int) -> Tensor:
    """An image of each level."""
    return torch.tensor(levels, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 4, 4)


def test_it_is_the_mean_over_pairs_and_then_over_layouts() -> None:
    """Levels 0, 51, 255 are -1, -0.6, 1: distances 0.4, 2 and 1.6, whose mean is 4/3. Equal images have none."""
    found = diversity([plain(0, 51, 255), plain(9, 9, 9)], difference)
    assert found == (pytest.approx(2 / 3), pytest.approx(2 / 3), 2, 3)
    several = plain(*range(0, 14, 2))
    assert len(several) * (len(several) - 1) // 2 > PAIRS, 'pairs in more than one part'
    steps = [j - i for i in range(7) for j in range(i + 1, 7)]
    assert diversity([several], difference).mean == pytest.approx(2 / 127.5 * sum(steps) / len(steps), rel=1e-5)


def test_what_has_no_pairs_is_refused() -> None:
    with pytest.raises(UserError, match='1 image, and diversity'):
        diversity([plain(0)], difference)
    with pytest.raises(UserError, match=r'layouts have \[2, 3\] images'):
        diversity([plain(0, 1), plain(0, 1, 2)], difference)
    with pytest.raises(UserError, match='no images'):
        diversity([], difference)


def test_lpips_is_such_a_distance() -> None:
    torch.manual_seed(0)
    network = LPIPSLoss(net='alex')
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    one, other = (images / 127.5 - 1).split(1)
    assert diversity([images], network.distance).mean == pytest.approx(float(network.distance(one, other)), rel=1e-5)
