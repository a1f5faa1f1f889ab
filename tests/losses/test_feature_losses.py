"""Losses on features, in closed form."""

from __future__ import annotations

import torch

from vq.losses.features import CosineLoss


def test_cosine_loss_is_the_mean_over_cells() -> None:
    prediction, features = torch.randn(3, 5, 2, 4), torch.randn(3, 5, 2, 4)
    expected = [
        1 - float(torch.dot(a, b) / (a.norm() * b.norm()))
        for a, b in zip(prediction.movedim(1, 3).reshape(-1, 5), features.movedim(1, 3).reshape(-1, 5), strict=True)
    ]
    assert len(expected) == 24
    torch.testing.assert_close(CosineLoss()(prediction, features), torch.tensor(expected).mean())
    assert CosineLoss(0.5).weight == 0.5 and CosineLoss.acts_on == 'features'


def test_only_the_direction_counts() -> None:
    features = torch.randn(2, 7, 3, 3)
    for scale, expected in ((3.0, 0.0), (-0.2, 2.0)):
        torch.testing.assert_close(CosineLoss()(scale * features, features), torch.tensor(expected), atol=1e-6, rtol=0)


def test_it_computes_in_fp32_under_autocast() -> None:
    prediction, features = torch.randn(2, 64, 3, 3), torch.randn(2, 64, 3, 3)
    expected = CosineLoss()(prediction.bfloat16().float(), features)
    with torch.autocast('cpu', torch.bfloat16):
        found = CosineLoss()(prediction.bfloat16(), features)
    assert found.dtype == torch.float32 and torch.equal(found, expected)
